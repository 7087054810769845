-- What running attempts read and keep. Each names its attempt; one that has ended writes nothing.

-- name: keep_progress
INSERT INTO live_progress (fence, value, told_at)
SELECT told.fence, told.value, told.told_at
FROM unnest($1::bigint[], $2::jsonb[], $3::timestamptz[]) AS told (fence, value, told_at)
JOIN attempt ON attempt.fence = told.fence
WHERE attempt.ended_at IS NULL
ON CONFLICT (fence) DO UPDATE SET value = excluded.value, told_at = excluded.told_at

-- name: keep_state
INSERT INTO task_state (run_number, task_id, map_index, value, fence)
SELECT run_number, task_id, map_index, $2::jsonb, fence
FROM attempt
WHERE fence = $1::bigint AND ended_at IS NULL
ON CONFLICT (run_number, task_id, map_index) DO UPDATE SET value = excluded.value, fence = excluded.fence
WHERE task_state.fence <= excluded.fence
RETURNING fence

-- name: read_state
SELECT value FROM task_state WHERE run_number = $1 AND task_id = $2 AND map_index = $3

-- name: worker_xcom
SELECT value FROM xcom WHERE run_number = $1 AND task_id = $2 AND map_index = $3 AND key = $4

-- name: previous_success
-- The successful run of the same dag with the nearest earlier logical date.
SELECT before.run_id, before.logical_date, before.data_interval_start, before.data_interval_end, before.started_at,
       before.ended_at
FROM run JOIN run AS before ON before.dag_id = run.dag_id AND before.logical_date < run.logical_date
WHERE run.number = $1 AND before.state = 'success'
ORDER BY before.logical_date DESC, before.number DESC
LIMIT 1
