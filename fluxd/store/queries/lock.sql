-- Who works on this database: one row.

-- name: take_holder
INSERT INTO holder (epoch, host, pid, home, since) VALUES (1, $1, $2, $3, now())
ON CONFLICT (single) DO UPDATE
SET epoch = holder.epoch + 1, host = excluded.host, pid = excluded.pid, home = excluded.home, since = excluded.since
RETURNING epoch

-- name: read_holder
SELECT epoch, host, pid, home, since FROM holder
