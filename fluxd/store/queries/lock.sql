-- Who works on this database: one row.

-- name: take_holder
-- $4: the epoch that we had before our connection broke, or null. Where nobody else came between, it stays.
INSERT INTO holder (epoch, host, pid, home, since) VALUES (1, $1, $2, $3, now())
ON CONFLICT (single) DO UPDATE
SET epoch = holder.epoch + (holder.epoch IS DISTINCT FROM $4::bigint)::integer, host = excluded.host, pid = excluded.pid, home = excluded.home, since = excluded.since
RETURNING epoch

-- name: read_holder
SELECT epoch, host, pid, home, since FROM holder

-- name: lock_holders
-- The sessions that hold the advisory lock of a daemon in this database.
SELECT activity.pid, activity.backend_start AS began
FROM pg_locks AS held JOIN pg_stat_activity AS activity ON activity.pid = held.pid
WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
    AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND held.classid::bigint = ($1::bigint >> 32) AND held.objid::bigint = ($1::bigint & 4294967295)
