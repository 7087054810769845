-- What the JSON API shows. Each answer is one statement, so that it is one moment of the truth.

-- name: api_dags
WITH live AS (
    SELECT dag_id, count(*) FILTER (WHERE state = 'running') AS running, count(*) FILTER (WHERE state = 'queued') AS queued
    FROM run WHERE state IN ('queued', 'running') GROUP BY dag_id
)
SELECT d.dag_id, d.file, d.paused, d.removed, d.next_due_at, v.number AS version, v.spec,
    f.error, coalesce(live.running, 0) AS running_runs, coalesce(live.queued, 0) AS queued_runs,
    last.run_id AS last_run_id, last.state AS last_state, last.logical_date AS last_logical_date,
    last.started_at AS last_started_at, last.ended_at AS last_ended_at, last.reason AS last_reason
FROM dag d
LEFT JOIN dag_version v ON v.id = d.version_id
LEFT JOIN dag_file f ON f.file = d.file
LEFT JOIN live ON live.dag_id = d.dag_id
LEFT JOIN LATERAL (SELECT * FROM run WHERE run.dag_id = d.dag_id ORDER BY number DESC LIMIT 1) last ON true
WHERE d.dag_id > $1::text AND NOT d.forgotten AND (NOT d.removed OR $2::boolean)
    AND ($3::text IS NULL OR v.spec->'tags' ? $3::text) AND ($4::boolean IS NULL OR d.paused = $4::boolean)
ORDER BY d.dag_id LIMIT $5::integer

-- name: api_dag
SELECT d.dag_id, d.file, d.paused, d.removed, d.next_due_at, d.first_seen_at, v.number AS version, v.spec, v.spec_hash,
    v.bundle, v.created_at AS version_created_at, f.error, f.loaded_at,
    (SELECT count(*) FROM run WHERE dag_id = d.dag_id AND state = 'running') AS running_runs,
    (SELECT count(*) FROM run WHERE dag_id = d.dag_id AND state = 'queued') AS queued_runs
FROM dag d
LEFT JOIN dag_version v ON v.id = d.version_id
LEFT JOIN dag_file f ON f.file = d.file
WHERE d.dag_id = $1::text AND NOT d.forgotten

-- name: api_source
SELECT d.dag_id, b.file, v.number AS version, b.hash AS bundle, b.files
FROM dag d
JOIN dag_version v ON v.dag_id = d.dag_id AND (v.id = d.version_id AND $2::integer IS NULL OR v.number = $2::integer)
JOIN bundle b ON b.hash = v.bundle
WHERE d.dag_id = $1::text AND NOT d.forgotten

-- name: api_dag_errors
SELECT f.file, f.error, f.loaded_at IS NOT NULL AS has_good_version,
    coalesce((SELECT array_agg(d.dag_id ORDER BY d.dag_id) FROM dag d WHERE d.file = f.file AND NOT d.removed), '{}')
        AS dag_ids
FROM dag_file f WHERE f.error IS NOT NULL AND NOT f.removed ORDER BY f.file

-- name: api_dag_names
SELECT dag_id AS name FROM dag WHERE NOT removed

-- name: api_run_names
SELECT run_id AS name FROM run WHERE dag_id = $1::text ORDER BY number DESC LIMIT 1000

-- name: api_runs
SELECT r.*, v.number AS version
FROM run r JOIN dag_version v ON v.id = r.version_id
WHERE r.dag_id NOT IN (SELECT dag_id FROM dag WHERE forgotten)
    AND ($1::text IS NULL OR r.dag_id = $1::text) AND r.number < $2::bigint
    AND ($3::text[] IS NULL OR r.state = ANY ($3::text[])) AND ($4::text IS NULL OR r.run_type = $4::text)
    AND ($5::timestamptz IS NULL OR r.logical_date >= $5::timestamptz)
    AND ($6::timestamptz IS NULL OR r.logical_date < $6::timestamptz)
ORDER BY r.number DESC LIMIT $7::integer

-- name: api_runs_by_logical_date
SELECT r.*, v.number AS version
FROM run r JOIN dag_version v ON v.id = r.version_id
WHERE r.dag_id NOT IN (SELECT dag_id FROM dag WHERE forgotten)
    AND r.dag_id = $1::text AND r.logical_date < $2::timestamptz
    AND ($3::text[] IS NULL OR r.state = ANY ($3::text[]))
ORDER BY r.logical_date DESC, r.number DESC LIMIT $4::integer

-- name: api_run
SELECT r.*, v.number AS version FROM run r JOIN dag_version v ON v.id = r.version_id
WHERE r.dag_id NOT IN (SELECT dag_id FROM dag WHERE forgotten)
    AND r.dag_id = $1::text AND r.run_id = $2::text

-- name: api_run_with_tasks
WITH one AS (
    SELECT r.*, v.number AS version, v.spec FROM run r JOIN dag_version v ON v.id = r.version_id
    WHERE r.dag_id = $1::text AND r.run_id = $2::text
), node AS (
    SELECT t.value->>'task_id' AS task_id, t.value->>'operator' AS operator, t.value->'upstream' AS upstream, t.place
    FROM one, jsonb_array_elements(one.spec->'tasks') WITH ORDINALITY AS t (value, place)
)
SELECT one.number, one.dag_id, one.run_id, one.run_type, one.state, one.version, one.logical_date,
    one.data_interval_start, one.data_interval_end, one.due_at, one.queued_at, one.started_at, one.ended_at, one.conf,
    one.reason, one.created_by, one.cancelling, one.spec->>'timezone' AS timezone,
    i.task_id, i.map_index, i.state AS task_state, i.try_number, i.max_tries, i.queued_at AS task_queued_at,
    i.started_at AS task_started_at, i.ended_at AS task_ended_at, i.retry_at, i.wait, i.wait_until,
    i.reason AS task_reason, node.operator, node.upstream
FROM one
LEFT JOIN task_instance i ON i.run_number = one.number
LEFT JOIN node ON node.task_id = i.task_id
ORDER BY node.place, i.task_id, i.map_index

-- name: api_run_keys
SELECT r.number, r.state, i.task_id, i.map_index, i.state AS task_state
FROM run r LEFT JOIN task_instance i ON i.run_number = r.number
WHERE r.dag_id = $1::text AND r.run_id = $2::text
ORDER BY i.task_id, i.map_index

-- name: api_task
SELECT r.number, r.dag_id, r.run_id, r.state AS run_state, i.*, node.spec,
    a.fence AS try_fence, a.try_number AS try_of, a.state AS try_state, a.queued_at AS try_queued_at,
    a.started_at AS try_started_at, a.ended_at AS try_ended_at, a.pid, a.exit_code, a.signal, a.reason AS try_reason,
    a.usage, a.rendered, a.legs, a.executor, a.progress
FROM run r
JOIN dag_version v ON v.id = r.version_id
JOIN task_instance i ON i.run_number = r.number AND i.task_id = $3::text AND i.map_index = $4::integer
LEFT JOIN LATERAL (
    SELECT t.value AS spec FROM jsonb_array_elements(v.spec->'tasks') AS t WHERE t.value->>'task_id' = $3::text
) node ON true
LEFT JOIN LATERAL (
    SELECT * FROM whole_try t WHERE (t.run_number, t.task_id, t.map_index) = (i.run_number, i.task_id, i.map_index)
    OFFSET 0 -- else the planner makes the tries of all runs first
) a ON true
WHERE r.dag_id = $1::text AND r.run_id = $2::text
ORDER BY a.try_number

-- name: api_try
SELECT r.dag_id, r.run_id, i.task_id, i.map_index, i.try_number AS last_try, a.try_number, a.state, a.ended_at
FROM run r
JOIN task_instance i ON i.run_number = r.number AND i.task_id = $3::text AND i.map_index = $4::integer
LEFT JOIN LATERAL (
    SELECT * FROM whole_try t WHERE (t.run_number, t.task_id, t.map_index) = (i.run_number, i.task_id, i.map_index)
        AND t.try_number = $5::integer
    OFFSET 0
) a ON true
WHERE r.dag_id = $1::text AND r.run_id = $2::text

-- name: api_xcoms
SELECT x.map_index, x.key, x.value
FROM run r JOIN xcom x ON x.run_number = r.number
WHERE r.dag_id = $1::text AND r.run_id = $2::text AND x.task_id = $3::text
    AND ($4::text IS NULL OR x.key = $4::text) AND ($5::integer IS NULL OR x.map_index = $5::integer)
ORDER BY x.map_index, x.key

-- name: api_pools
SELECT p.name, p.slots, p.description, coalesce(used.slots, 0) AS used_slots, coalesce(used.tasks, 0) AS tasks
FROM pool p
LEFT JOIN (
    SELECT coalesce(t.value->>'pool', 'default_pool') AS name, count(*) AS tasks,
        sum(coalesce((t.value->>'pool_slots')::integer, 1)) AS slots
    FROM run r
    JOIN task_instance i ON i.run_number = r.number AND i.state IN ('queued', 'running', 'restarting')
    JOIN dag_version v ON v.id = r.version_id
    JOIN LATERAL jsonb_array_elements(v.spec->'tasks') AS t ON t.value->>'task_id' = i.task_id
    WHERE r.state IN ('queued', 'running')
    GROUP BY 1
) used ON used.name = p.name
ORDER BY p.name

-- name: api_counts
SELECT
    (SELECT count(*) FROM dag WHERE NOT removed) AS dags,
    (SELECT count(*) FROM dag WHERE NOT removed AND paused) AS paused_dags,
    (SELECT count(*) FROM dag_file WHERE NOT removed AND error IS NOT NULL) AS dag_errors,
    (SELECT count(*) FROM run WHERE state = 'running') AS running_runs,
    (SELECT count(*) FROM run WHERE state = 'queued') AS queued_runs,
    (SELECT count(*) FROM attempt WHERE state = 'running') AS running_tasks,
    (SELECT count(*) FROM attempt WHERE state = 'queued') AS queued_tasks,
    (SELECT count(*) FROM attempt WHERE state = 'waiting') AS waiting_tasks,
    now() AS database_time

-- name: api_begin_once
WITH gone AS (DELETE FROM idempotency WHERE stored_at < now() - interval '1 day' AND key <> $1::text)
INSERT INTO idempotency (key, status, body) VALUES ($1::text, 0, $2::jsonb) ON CONFLICT (key) DO NOTHING RETURNING key

-- name: api_answered
SELECT status, body FROM idempotency WHERE key = $1::text

-- name: api_end_once
UPDATE idempotency SET status = $2::integer, body = $3::jsonb, stored_at = now() WHERE key = $1::text

-- name: api_forget_once
DELETE FROM idempotency WHERE key = $1::text
