-- Whether the timetable of a dag has begun: from then on its past is not looked at as that of a new dag, also where
-- nothing is due any more and nothing ever ran.
ALTER TABLE dag ADD COLUMN begun boolean NOT NULL DEFAULT false;
UPDATE dag SET begun = true
WHERE next_due_at IS NOT NULL
    OR EXISTS (SELECT FROM run WHERE run.dag_id = dag.dag_id AND run.due_at IS NOT NULL)
    OR EXISTS (SELECT FROM tick_skip WHERE tick_skip.dag_id = dag.dag_id);
