-- What the pages show. One page, one query, or a few; nothing here grows with a dag's history: the last runs are
-- found through run_of_dag (dag_id, number DESC), live ones through run_live.

-- name: page_dags
-- $1 part of the name, a tag or the owner, or null; $2 all | failing | running | paused; $3 runs a dag; $4, $5: limit, offset
WITH live AS (
    SELECT dag_id, count(*) AS live FROM run WHERE state IN ('queued', 'running') GROUP BY dag_id
), stuck AS (
    SELECT run.dag_id, count(*) FILTER (WHERE ti.state = 'up_for_retry') AS retrying,
           count(*) FILTER (WHERE ti.state = 'waiting') AS waiting
    FROM run JOIN task_instance ti ON ti.run_number = run.number
    WHERE run.state IN ('queued', 'running') AND ti.state IN ('up_for_retry', 'waiting')
    GROUP BY run.dag_id
), listed AS (
    SELECT dag.dag_id, dag.file, dag.paused, dag.next_due_at, dag.version_id, dag_file.error IS NOT NULL AS broken,
           coalesce(live.live, 0) AS live,
           last.state AS last_state
    FROM dag
    LEFT JOIN dag_file USING (file)
    LEFT JOIN live USING (dag_id)
    LEFT JOIN LATERAL (
        SELECT state FROM run WHERE run.dag_id = dag.dag_id AND state NOT IN ('queued', 'running')
        ORDER BY number DESC LIMIT 1
    ) last ON true
    WHERE NOT dag.removed
), counted AS (
    SELECT count(*) AS n_all,
           count(*) FILTER (WHERE last_state = 'failed') AS n_failing,
           count(*) FILTER (WHERE live > 0) AS n_running,
           count(*) FILTER (WHERE paused) AS n_paused
    FROM listed
), chosen AS (
    SELECT listed.*, version.spec, count(*) OVER () AS n_found
    FROM listed
    JOIN dag_version version ON version.id = listed.version_id
    WHERE ($2::text = 'all' OR ($2 = 'failing' AND last_state = 'failed') OR ($2 = 'running' AND live > 0)
           OR ($2 = 'paused' AND paused))
      AND ($1::text IS NULL OR position(lower($1) IN lower(listed.dag_id)) > 0
           OR lower(version.spec ->> 'owner') = lower($1)
           OR EXISTS (SELECT FROM jsonb_array_elements_text(version.spec -> 'tags') tag
                      WHERE position(lower($1) IN lower(tag)) > 0))
    ORDER BY listed.dag_id
    LIMIT $4::int OFFSET $5::int
)
SELECT counted.*, chosen.dag_id, chosen.file, chosen.paused, chosen.next_due_at, chosen.broken, chosen.live,
       chosen.last_state, chosen.n_found,
       chosen.spec ->> 'description' AS description, chosen.spec -> 'tags' AS tags,
       chosen.spec -> 'schedule' AS schedule, coalesce(chosen.spec ->> 'timezone', 'UTC') AS timezone,
       chosen.spec ->> 'owner' AS owner,
       coalesce(stuck.retrying, 0) AS retrying, coalesce(stuck.waiting, 0) AS waiting,
       runs.runs
FROM counted
LEFT JOIN chosen ON true
LEFT JOIN stuck USING (dag_id)
LEFT JOIN LATERAL (
    SELECT jsonb_agg(r ORDER BY r.number) AS runs
    FROM (
        SELECT number, run_id, run_type, state, data_interval_start, data_interval_end, queued_at, started_at,
               ended_at, reason
        FROM run WHERE run.dag_id = chosen.dag_id ORDER BY number DESC LIMIT $3::int
    ) r
) runs ON true
ORDER BY chosen.dag_id

-- name: page_broken_files
SELECT dag_file.file, dag_file.error, dag_file.bundle IS NOT NULL AS had_good,
       array(SELECT dag_id FROM dag WHERE dag.file = dag_file.file AND NOT removed ORDER BY dag_id) AS dag_ids
FROM dag_file
WHERE error IS NOT NULL AND NOT removed
ORDER BY file

-- name: page_dag
SELECT dag.dag_id, dag.file, dag.paused, dag.removed, dag.next_due_at, dag.first_seen_at, version.id AS version_id,
       version.number AS version, version.spec, version.created_at AS version_at, dag_file.error,
       (SELECT count(*) FROM run WHERE run.dag_id = dag.dag_id AND state = 'running') AS running,
       (SELECT count(*) FROM run WHERE run.dag_id = dag.dag_id AND state = 'queued') AS queued
FROM dag
LEFT JOIN dag_version version ON version.id = dag.version_id
LEFT JOIN dag_file ON dag_file.file = dag.file
WHERE dag.dag_id = $1::text AND NOT dag.forgotten

-- name: page_dag_runs
-- The newest $3 runs with a number below $2.
SELECT run.number, run.run_id, run.run_type, run.state, run.logical_date, run.data_interval_start,
       run.data_interval_end, run.due_at, run.queued_at, run.started_at, run.ended_at, run.reason, run.cancelling,
       version.number AS version
FROM run JOIN dag_version version ON version.id = run.version_id
WHERE run.dag_id = $1::text AND run.number < $2::bigint
ORDER BY run.number DESC
LIMIT $3::int

-- name: page_dag_last_failure
-- The last failed one of the newest 200: a dag that never fails must not make us read all its history.
SELECT * FROM (
    SELECT number, run_id, state, data_interval_start, data_interval_end, started_at, ended_at, reason
    FROM run WHERE dag_id = $1::text ORDER BY number DESC LIMIT 200
) newest
WHERE state = 'failed'
ORDER BY number DESC
LIMIT 1

-- name: page_grid
SELECT run_number, task_id, map_index, state, try_number, started_at, ended_at, reason
FROM task_instance
WHERE run_number = ANY ($1::bigint[])
ORDER BY run_number, task_id, map_index

-- name: page_versions
SELECT number, created_at, spec_hash, bundle FROM dag_version
WHERE dag_id = $1::text
ORDER BY number DESC
LIMIT $2::int

-- name: page_skips
SELECT first, last, count, reason FROM tick_skip
WHERE dag_id = $1::text
ORDER BY first DESC
LIMIT $2::int

-- name: page_source
-- $2: a version's number, null for the newest.
SELECT dag.dag_id, dag.file, version.number, version.created_at, bundle.files, bundle.hash,
       (SELECT max(number) FROM dag_version newest WHERE newest.dag_id = dag.dag_id) AS newest,
       dag_file.error
FROM dag
JOIN dag_version version ON version.dag_id = dag.dag_id
JOIN bundle ON bundle.hash = version.bundle
LEFT JOIN dag_file ON dag_file.file = dag.file
WHERE dag.dag_id = $1::text AND NOT dag.forgotten AND ($2::int IS NULL OR version.number = $2)
ORDER BY version.number DESC
LIMIT 1

-- name: page_run
SELECT run.*, version.number AS version, version.spec, dag.paused,
       (SELECT run_id FROM run older WHERE older.dag_id = run.dag_id AND older.number < run.number
        ORDER BY number DESC LIMIT 1) AS older,
       (SELECT run_id FROM run newer WHERE newer.dag_id = run.dag_id AND newer.number > run.number
        ORDER BY number LIMIT 1) AS newer
FROM run
JOIN dag_version version ON version.id = run.version_id
JOIN dag ON dag.dag_id = run.dag_id AND NOT dag.forgotten
WHERE run.dag_id = $1::text AND run.run_id = $2::text

-- name: page_run_tasks
SELECT task_id, map_index, state, try_number, max_tries, queued_at, started_at, ended_at, retry_at, wait_until, reason
FROM task_instance
WHERE run_number = $1::bigint
ORDER BY task_id, map_index

-- name: page_task
SELECT run.number, run.dag_id, run.run_id, run.run_type, run.state AS run_state, run.logical_date,
       run.data_interval_start, run.data_interval_end, run.due_at, version.number AS version, version.spec,
       ti.task_id, ti.map_index, ti.state, ti.try_number, ti.max_tries, ti.queued_at, ti.started_at, ti.ended_at,
       ti.retry_at, ti.wait, ti.wait_until, ti.reason
FROM run
JOIN dag_version version ON version.id = run.version_id
JOIN task_instance ti ON ti.run_number = run.number
WHERE run.dag_id = $1::text AND run.run_id = $2::text AND ti.task_id = $3::text AND ti.map_index = $4::int

-- name: page_tries
SELECT fence, try_number, state, queued_at, started_at, ended_at, pid, exit_code, signal, reason, usage, rendered, legs,
       executor, progress
FROM whole_try
WHERE run_number = $1::bigint AND task_id = $2::text AND map_index = $3::int
ORDER BY try_number

-- name: page_xcoms
-- A value may be a megabyte: the page shows its beginning.
SELECT key, left(jsonb_pretty(value), $4::int) AS shown, length(value::text) AS length
FROM xcom
WHERE run_number = $1::bigint AND task_id = $2::text AND map_index = $3::int
ORDER BY key

-- name: page_task_neighbours
-- The same task in the run before and in the run after.
SELECT (SELECT older.run_id FROM run older JOIN task_instance ti ON ti.run_number = older.number
        WHERE older.dag_id = run.dag_id AND older.number < run.number AND ti.task_id = $2::text AND ti.map_index = $3::int
        ORDER BY older.number DESC LIMIT 1) AS older,
       (SELECT newer.run_id FROM run newer JOIN task_instance ti ON ti.run_number = newer.number
        WHERE newer.dag_id = run.dag_id AND newer.number > run.number AND ti.task_id = $2::text AND ti.map_index = $3::int
        ORDER BY newer.number LIMIT 1) AS newer
FROM run WHERE run.number = $1::bigint
