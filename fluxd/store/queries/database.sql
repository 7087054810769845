-- What is asked of the server itself.

-- name: server_facts
SELECT current_setting('server_version_num')::integer AS version,
       current_setting('server_version') AS version_words,
       current_setting('server_encoding') AS encoding,
       current_setting('transaction_read_only')::boolean AS read_only,
       pg_is_in_recovery() AS standby,
       pg_backend_pid() AS pid,
       (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS began

-- name: no_transaction_timeout
-- Only newer servers have it.
SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout' AND setting <> '0'

-- name: end_backends
-- By number and beginning: the number may be another session's by now. Waits until they have gone; those that are still
-- there then (stopped, or waiting for a disk that hangs) are returned.
-- Materialized: else the end might be put on every session before it is asked whether it is ours.
WITH left_behind AS MATERIALIZED (
    SELECT pid, backend_start FROM pg_stat_activity
    JOIN unnest($1::integer[], $2::timestamptz[]) AS ours (pid, backend_start) USING (pid, backend_start)
)
SELECT pid, backend_start AS began FROM left_behind WHERE NOT coalesce(pg_terminate_backend(pid, 3000), false)
