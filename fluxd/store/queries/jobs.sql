-- What lives long and beats.

-- name: begin_job
INSERT INTO job (kind, state, host, pid, detail) VALUES ($1, 'running', $2, $3, $4) RETURNING id

-- name: beat_jobs
-- The beat of a job that was given up is no beat: its id is not among those returned.
UPDATE job SET beat_at = now() WHERE id = ANY ($1::bigint[]) AND state = 'running' RETURNING id

-- name: end_job
UPDATE job SET state = $2, ended_at = now() WHERE id = $1 AND state = 'running'

-- name: lose_jobs
UPDATE job SET state = 'lost', ended_at = now()
WHERE kind = $1 AND state = 'running' AND id <> ALL ($2::bigint[])
RETURNING id
