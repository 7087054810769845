-- Who works on this database: one row.

-- name: take_holder
INSERT INTO holder (epoch, host, pid, home, since) VALUES (1, $1, $2, $3, now())
ON CONFLICT (single) DO UPDATE
SET epoch = holder.epoch + 1, host = excluded.host, pid = excluded.pid, home = excluded.home, since = excluded.since
RETURNING epoch

-- name: read_holder
SELECT epoch, host, pid, home, since FROM holder

-- name: lock_is_mine
-- A bigint key is kept in two halves; objsubid 1 says that it was one bigint.
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32 | objid::bigint) = $1::bigint
)
