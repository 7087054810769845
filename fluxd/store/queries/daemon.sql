-- What the daemon looks up beside turns and dags.

-- name: tasks_with_xcoms
SELECT DISTINCT xcom.run_number, xcom.task_id, xcom.map_index
FROM xcom JOIN run ON run.number = xcom.run_number
WHERE run.state IN ('queued', 'running')

-- name: name_of_run
SELECT dag_id, run_id FROM run
WHERE number = $1 AND dag_id NOT IN (SELECT dag_id FROM dag WHERE forgotten)

-- name: run_id_taken
SELECT EXISTS (SELECT FROM run WHERE dag_id = $1 AND run_id = $2)

-- name: version
SELECT version.spec, version.bundle, bundle.file
FROM dag_version AS version JOIN bundle ON bundle.hash = version.bundle
WHERE version.id = $1

-- name: xcoms_of_tasks
SELECT xcom.*
FROM unnest($1::bigint[], $2::text[], $3::integer[]) AS wanted (run_number, task_id, map_index)
JOIN xcom ON (xcom.run_number, xcom.task_id, xcom.map_index) = (wanted.run_number, wanted.task_id, wanted.map_index)
