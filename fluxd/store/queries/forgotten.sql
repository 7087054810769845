-- The history of deleted dags, in batches: each of these removes a bounded number of rows and says how many, from the
-- oldest runs on, and from the bottom up. $1: the dag, $2: at most so many rows.

-- name: forgotten_dags
SELECT dag_id FROM dag WHERE forgotten ORDER BY dag_id

-- name: forget_attempts
DELETE FROM attempt WHERE fence IN (
    SELECT fence FROM (SELECT number FROM run WHERE dag_id = $1::text ORDER BY number LIMIT 100) AS first
    JOIN attempt ON attempt.run_number = first.number
    LIMIT $2::integer
)

-- name: forget_xcoms
DELETE FROM xcom WHERE ctid IN (
    SELECT xcom.ctid FROM (SELECT number FROM run WHERE dag_id = $1::text ORDER BY number LIMIT 100) AS first
    JOIN xcom ON xcom.run_number = first.number
    LIMIT $2::integer
)

-- name: forget_instances
DELETE FROM task_instance WHERE ctid IN (
    SELECT task_instance.ctid FROM (SELECT number FROM run WHERE dag_id = $1::text ORDER BY number LIMIT 100) AS first
    JOIN task_instance ON task_instance.run_number = first.number
    LIMIT $2::integer
)

-- name: forget_runs
-- Only those that have nothing left below them: what the three before it have cleared.
DELETE FROM run WHERE number IN (
    SELECT number FROM run WHERE dag_id = $1::text ORDER BY number LIMIT least(100, $2::integer)
)

-- name: forget_skips
DELETE FROM tick_skip WHERE ctid IN (SELECT ctid FROM tick_skip WHERE dag_id = $1::text LIMIT $2::integer)

-- name: forget_dag
-- Its versions go with it: there are few.
DELETE FROM dag WHERE dag_id = $1::text AND forgotten
