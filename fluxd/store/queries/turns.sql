-- What one turn of the engine stores. `turns.save` joins the parts that a turn has into one statement (as WITH parts),
-- which is one round trip and one transaction by itself. Parts see the database as it was before the statement, so
-- none may depend on what another wrote; foreign keys are checked when all are done.
-- The arrays hold whole rows of the tables, in the order of their columns.

-- name: save_runs
INSERT INTO run SELECT * FROM unnest($1::run[])
ON CONFLICT (number) DO UPDATE
SET state = excluded.state, version_id = excluded.version_id, queued_at = excluded.queued_at,
    started_at = excluded.started_at, ended_at = excluded.ended_at, reason = excluded.reason,
    cancelling = excluded.cancelling

-- name: save_instances
INSERT INTO task_instance SELECT * FROM unnest($1::task_instance[])
ON CONFLICT (run_number, task_id, map_index) DO UPDATE
SET state = excluded.state, try_number = excluded.try_number, max_tries = excluded.max_tries, fence = excluded.fence,
    stop_reason = excluded.stop_reason, queued_at = excluded.queued_at, started_at = excluded.started_at,
    ended_at = excluded.ended_at, retry_at = excluded.retry_at, wait = excluded.wait,
    wait_until = excluded.wait_until, reason = excluded.reason
-- A word of an older attempt changes nothing.
WHERE task_instance.fence IS NULL OR task_instance.fence <= excluded.fence

-- name: save_attempts
-- In the order of their fences: one attempt ends before the next of the same instance may live (attempt_one_live).
INSERT INTO attempt SELECT * FROM unnest($1::attempt[])
ON CONFLICT (fence) DO UPDATE
SET state = excluded.state, started_at = excluded.started_at, ended_at = excluded.ended_at, pid = excluded.pid,
    exit_code = excluded.exit_code, signal = excluded.signal, reason = excluded.reason, usage = excluded.usage,
    rendered = excluded.rendered, progress = excluded.progress
-- An attempt ends once.
WHERE attempt.ended_at IS NULL

-- name: save_xcoms
INSERT INTO xcom SELECT * FROM unnest($1::xcom[])
ON CONFLICT (run_number, task_id, map_index, key) DO UPDATE SET value = excluded.value

-- name: save_skips
INSERT INTO tick_skip SELECT * FROM unnest($1::tick_skip[])
ON CONFLICT (dag_id, first) DO UPDATE SET last = excluded.last, count = excluded.count, reason = excluded.reason

-- name: save_cursors
UPDATE dag SET next_due_at = new.next_due_at, paused = new.paused, begun = true
FROM unnest($1::text[], $2::timestamptz[], $3::boolean[]) AS new (dag_id, next_due_at, paused)
WHERE dag.dag_id = new.dag_id

-- name: drop_xcoms
DELETE FROM xcom USING unnest($1::bigint[], $2::text[], $3::integer[]) AS gone (run_number, task_id, map_index)
WHERE (xcom.run_number, xcom.task_id, xcom.map_index) = (gone.run_number, gone.task_id, gone.map_index)

-- name: drop_states
DELETE FROM task_state USING unnest($1::bigint[], $2::text[], $3::integer[]) AS gone (run_number, task_id, map_index)
WHERE (task_state.run_number, task_state.task_id, task_state.map_index) = (gone.run_number, gone.task_id, gone.map_index)

-- name: forget_dags
-- The dag is gone for everybody at once; its history goes in batches (forgotten.sql). The numbers that were given stay
-- given.
WITH kept AS (
    UPDATE high_water
    SET run_number = greatest(run_number, (SELECT max(number) FROM run)),
        fence = greatest(high_water.fence, (SELECT max(fence) FROM attempt))
)
UPDATE dag SET forgotten = true, removed = true WHERE dag_id = ANY ($1::text[])

-- name: load_dags
SELECT dag.dag_id, dag.version_id, dag.paused, dag.next_due_at, dag.removed, dag_version.spec,
       dag.begun AS seen_before,
       (SELECT last FROM tick_skip WHERE tick_skip.dag_id = dag.dag_id ORDER BY first DESC LIMIT 1) AS last_skipped
FROM dag JOIN dag_version ON dag_version.id = dag.version_id
WHERE NOT dag.forgotten
ORDER BY dag.dag_id

-- name: load_past
-- Of each dag the newest finished scheduled run, and the one right before each live one.
SELECT run.dag_id, run.due_at, run.logical_date,
       (SELECT jsonb_agg(jsonb_build_array(task_id, map_index, state)) FROM task_instance WHERE run_number = run.number)
           AS states
FROM run
WHERE run.number IN (
    SELECT newest.number
    FROM dag CROSS JOIN LATERAL (
        SELECT number FROM run
        WHERE run.dag_id = dag.dag_id AND due_at IS NOT NULL AND state NOT IN ('queued', 'running')
        ORDER BY due_at DESC LIMIT 1
    ) AS newest
    UNION
    SELECT before.number
    FROM run AS live CROSS JOIN LATERAL (
        SELECT number, state FROM run
        WHERE run.dag_id = live.dag_id AND due_at < live.due_at
        ORDER BY due_at DESC LIMIT 1
    ) AS before
    WHERE live.state IN ('queued', 'running') AND before.state NOT IN ('queued', 'running')
)
ORDER BY run.number

-- name: load_run_before
-- The scheduled run of the same dag that was due before this one.
SELECT run.dag_id, run.due_at, run.logical_date,
       (SELECT jsonb_agg(jsonb_build_array(task_id, map_index, state)) FROM task_instance WHERE run_number = run.number)
           AS states
FROM run
WHERE run.dag_id = $1 AND run.due_at < $2
ORDER BY run.due_at DESC LIMIT 1

-- name: load_versions
SELECT id AS version_id, spec FROM dag_version
WHERE id IN (SELECT version_id FROM run WHERE state IN ('queued', 'running'))

-- name: load_runs
SELECT * FROM run WHERE state IN ('queued', 'running') ORDER BY number

-- name: load_instances
SELECT task_instance.*
FROM task_instance JOIN run ON run.number = task_instance.run_number
WHERE run.state IN ('queued', 'running')
ORDER BY run_number, task_id, map_index

-- name: load_attempts
SELECT * FROM attempt WHERE state IN ('queued', 'running', 'waiting') ORDER BY fence

-- name: load_last_numbers
SELECT greatest(run_number, (SELECT max(number) FROM run)) AS run_number,
       greatest(high_water.fence, (SELECT max(fence) FROM attempt)) AS fence
FROM high_water

-- name: load_run
SELECT run.*, dag_version.spec
FROM run JOIN dag_version ON dag_version.id = run.version_id
WHERE run.dag_id = $1 AND run.run_id = $2

-- name: load_instances_of_run
SELECT * FROM task_instance WHERE run_number = $1 ORDER BY task_id, map_index
