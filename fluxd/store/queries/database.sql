-- What is asked of the server itself.

-- name: server_facts
SELECT current_setting('server_version_num')::integer AS version,
       current_setting('server_version') AS version_words,
       current_setting('server_encoding') AS encoding,
       current_setting('transaction_read_only')::boolean AS read_only,
       pg_is_in_recovery() AS standby,
       pg_backend_pid() AS pid,
       (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS began

-- name: end_backend
-- By number and beginning: the number may be another session's by now. Waits until it has gone.
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
