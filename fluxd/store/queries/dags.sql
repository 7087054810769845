-- Dag files as they were loaded, the versions of their dags, and the source that each version runs.

-- name: store_load
-- A whole load in one statement: its parts see the tables as they were before, and foreign keys are checked at its end.
-- $1 file, $2 hash of its source, $3 the source, $4 seconds; then its dags: $5 ids, $6 specs, $7 their hashes, $8 paused.
WITH new AS (
    SELECT * FROM unnest($5::text[], $6::text[], $7::text[], $8::boolean[]) AS new (dag_id, spec, spec_hash, paused)
),
put_bundle AS (
    INSERT INTO bundle (hash, file, files) VALUES ($2, $1, $3) ON CONFLICT (hash) DO NOTHING
),
put_file AS (
    INSERT INTO dag_file (file, bundle, loaded_at, seconds) VALUES ($1, $2, now(), $4)
    ON CONFLICT (file) DO UPDATE
    SET bundle = excluded.bundle, loaded_at = excluded.loaded_at, seconds = excluded.seconds, error = NULL,
        removed = false
),
-- A version is what a dag means and the source that does it; one that came back is the old one.
old_version AS (
    SELECT dag_version.id, dag_version.dag_id
    FROM dag_version JOIN new USING (dag_id, spec_hash)
    WHERE dag_version.bundle = $2
),
new_version AS (
    INSERT INTO dag_version (dag_id, number, spec, spec_hash, bundle)
    SELECT dag_id, 1 + coalesce((SELECT max(number) FROM dag_version AS old WHERE old.dag_id = new.dag_id), 0),
           spec::jsonb, spec_hash, $2
    FROM new
    WHERE dag_id NOT IN (SELECT dag_id FROM old_version)
    RETURNING id, dag_id
),
put_dags AS (
    INSERT INTO dag (dag_id, file, paused, version_id)
    SELECT dag_id, $1, paused, id
    FROM new JOIN (SELECT * FROM old_version UNION ALL SELECT * FROM new_version) AS version USING (dag_id)
    ORDER BY dag_id   -- as all who lock rows of dags do: so they never wait for one another in a circle
    ON CONFLICT (dag_id) DO UPDATE SET file = excluded.file, version_id = excluded.version_id, removed = false
    -- One that lives in another file is left alone: it is missing in the answer then.
    WHERE (dag.file = excluded.file OR dag.removed) AND NOT dag.forgotten
    RETURNING dag_id, version_id
),
gone AS (
    UPDATE dag SET removed = true WHERE file = $1 AND NOT removed AND dag_id <> ALL ($5::text[]) RETURNING dag_id
)
SELECT put_dags.dag_id, put_dags.version_id,
       before.version_id IS DISTINCT FROM put_dags.version_id OR before.removed AS changed, false AS gone
FROM put_dags LEFT JOIN dag AS before ON before.dag_id = put_dags.dag_id
UNION ALL
SELECT dag_id, NULL, true, true FROM gone

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
-- Dags of these names that live in another file, which is still there, or whose history is still being deleted.
SELECT dag_id, file, forgotten FROM dag
WHERE dag_id = ANY ($1::text[]) AND (forgotten OR file <> $2 AND NOT removed)
ORDER BY dag_id LIMIT 1

-- name: remove_dags_of_file
UPDATE dag SET removed = true WHERE file = $1 AND NOT removed RETURNING dag_id
