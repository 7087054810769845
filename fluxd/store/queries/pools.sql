-- Named limits with slots.

-- name: read_pools
SELECT name, slots, description FROM pool ORDER BY name

-- name: put_pool
-- A description that is not given stays as it is.
INSERT INTO pool (name, slots, description) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, description = coalesce($3, pool.description)

-- name: delete_pool
DELETE FROM pool WHERE name = $1 RETURNING name
