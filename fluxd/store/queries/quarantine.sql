-- What was put aside because it could not be taken, with its evidence.

-- name: put_aside
-- The newest 1,000 are kept: a fault that comes with every event must not fill the disk.
WITH old AS (
    DELETE FROM quarantine WHERE id IN (SELECT id FROM quarantine ORDER BY at DESC OFFSET 999)
)
INSERT INTO quarantine (signature, kind, dag_id, run_id, task_id, fence, event, error, traceback, outcome)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (signature) DO UPDATE
SET at = now(), times = quarantine.times + 1, event = excluded.event, traceback = excluded.traceback,
    outcome = excluded.outcome, fence = excluded.fence

-- name: quarantine
SELECT id, at, times, kind, dag_id, run_id, task_id, fence, event, error, traceback, outcome
FROM quarantine ORDER BY at DESC, id DESC LIMIT $1::integer

-- name: name_of_fence
SELECT run.dag_id, run.run_id, attempt.task_id, run.number AS run_number
FROM attempt JOIN run ON run.number = attempt.run_number
WHERE attempt.fence = $1::bigint

-- name: name_of_number
SELECT dag_id, run_id, number AS run_number FROM run WHERE number = $1::bigint

-- name: give_up_run
-- A run that cannot be taken into memory ends as failed; its attempts end when their processes are proved gone.
WITH instances AS (
    UPDATE task_instance
    SET state = 'cancelled', ended_at = now(), reason = $2, retry_at = NULL, stop_reason = NULL, wait = NULL,
        wait_until = NULL
    WHERE run_number = $1::bigint
        AND state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'cancelled', 'removed')
)
UPDATE run SET state = 'failed', ended_at = now(), reason = $2, cancelling = false
WHERE number = $1::bigint AND state IN ('queued', 'running')

-- name: end_orphan
-- The attempt of a run that was given up: its process is gone.
UPDATE attempt SET state = 'cancelled', ended_at = now(), reason = $2 WHERE fence = $1::bigint AND ended_at IS NULL
