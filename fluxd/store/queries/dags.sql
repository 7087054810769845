-- Dag files as they were loaded, the versions of their dags, and the source that each version runs.

-- name: put_bundle
INSERT INTO bundle (hash, file, files) VALUES ($1, $2, $3) ON CONFLICT (hash) DO NOTHING

-- name: put_file
INSERT INTO dag_file (file, bundle, loaded_at, seconds) VALUES ($1, $2, now(), $3)
ON CONFLICT (file) DO UPDATE
SET bundle = excluded.bundle, loaded_at = excluded.loaded_at, seconds = excluded.seconds, error = NULL, removed = false

-- name: put_file_error
INSERT INTO dag_file (file, error) VALUES ($1, $2)
ON CONFLICT (file) DO UPDATE SET error = excluded.error, removed = false

-- name: mark_file_removed
UPDATE dag_file SET removed = true, error = NULL WHERE file = $1

-- name: read_files
SELECT file, bundle, loaded_at, seconds, error, removed,
       (SELECT coalesce(array_agg(dag_id ORDER BY dag_id), '{}') FROM dag WHERE dag.file = dag_file.file AND NOT dag.removed)
       AS dag_ids
FROM dag_file ORDER BY file

-- name: read_bundle
SELECT file, files FROM bundle WHERE hash = $1

-- name: find_taken
-- Dags of these names that live in another file, which is still there.
SELECT dag_id, file FROM dag
WHERE dag_id = ANY ($1::text[]) AND file <> $2 AND NOT removed
ORDER BY dag_id LIMIT 1

-- name: put_dags
INSERT INTO dag (dag_id, file, paused)
SELECT new.dag_id, $1, new.paused
FROM unnest($2::text[], $3::boolean[]) AS new (dag_id, paused)
ORDER BY new.dag_id
ON CONFLICT (dag_id) DO UPDATE SET file = excluded.file, removed = false

-- name: put_versions
-- A version is what a dag means and the source that does it; one that came back is the old one.
INSERT INTO dag_version (dag_id, number, spec, spec_hash, bundle)
SELECT new.dag_id, 1 + coalesce((SELECT max(number) FROM dag_version AS old WHERE old.dag_id = new.dag_id), 0),
       new.spec::jsonb, new.spec_hash, $1
FROM unnest($2::text[], $3::text[], $4::text[]) AS new (dag_id, spec, spec_hash)
ON CONFLICT (dag_id, spec_hash, bundle) DO NOTHING

-- name: point_to_versions
-- `changed` compares with the row as it was before this statement.
UPDATE dag SET version_id = version.id
FROM unnest($2::text[], $3::text[]) AS new (dag_id, spec_hash)
JOIN dag_version AS version ON version.dag_id = new.dag_id AND version.spec_hash = new.spec_hash AND version.bundle = $1
JOIN dag AS before ON before.dag_id = new.dag_id
WHERE dag.dag_id = new.dag_id
RETURNING dag.dag_id, version.id AS version_id, before.version_id IS DISTINCT FROM version.id AS changed

-- name: remove_missing
UPDATE dag SET removed = true
WHERE file = $1 AND NOT removed AND dag_id <> ALL ($2::text[])
RETURNING dag_id
