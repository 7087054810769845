-- An attempt is (fence, leg, executor): each stretch of a try between two waits, and each wait, is a row of its own.
ALTER TABLE attempt ADD COLUMN leg integer NOT NULL DEFAULT 1;
ALTER TABLE attempt ADD COLUMN executor text NOT NULL DEFAULT 'local';
ALTER TABLE attempt ADD COLUMN progress jsonb;   -- rows, bytes, note: as its process told at its end
ALTER TABLE attempt DROP CONSTRAINT attempt_state_check;
ALTER TABLE attempt ADD CONSTRAINT attempt_state_check CHECK (state IN ('queued', 'running', 'waiting', 'success',
    'failed', 'skipped', 'cancelled', 'lost', 'deferred'));
ALTER TABLE attempt DROP CONSTRAINT attempt_run_number_task_id_map_index_try_number_key;
ALTER TABLE attempt ADD UNIQUE (run_number, task_id, map_index, try_number, leg);
-- Waits that were begun before legs had rows of their own: the daemon has them now.
UPDATE attempt SET executor = 'daemon' WHERE state = 'waiting';

CREATE TABLE live_progress (     -- what a running attempt told last; written by the daemon at its own pace
    fence       bigint PRIMARY KEY REFERENCES attempt ON DELETE CASCADE,
    value       jsonb NOT NULL,
    told_at     timestamptz NOT NULL
);

CREATE TABLE task_state (        -- what the tries of a task instance keep for one another
    run_number  bigint NOT NULL,
    task_id     text NOT NULL,
    map_index   integer NOT NULL,
    value       jsonb NOT NULL,
    fence       bigint NOT NULL, -- the attempt that wrote it
    PRIMARY KEY (run_number, task_id, map_index),
    FOREIGN KEY (run_number, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE
);

CREATE VIEW whole_try AS         -- one row for each try, made of its legs
SELECT run_number, task_id, map_index, try_number, max(attempt.fence) AS fence, count(*)::integer AS legs,
    (array_agg(executor ORDER BY leg))[1] AS executor, (array_agg(state ORDER BY leg DESC))[1] AS state,
    min(queued_at) AS queued_at, min(started_at) AS started_at, (array_agg(ended_at ORDER BY leg DESC))[1] AS ended_at,
    -- Of processes, the last one's.
    (array_agg(pid ORDER BY leg DESC) FILTER (WHERE executor <> 'daemon'))[1] AS pid,
    (array_agg(exit_code ORDER BY leg DESC) FILTER (WHERE executor <> 'daemon'))[1] AS exit_code,
    (array_agg(signal ORDER BY leg DESC) FILTER (WHERE executor <> 'daemon'))[1] AS signal,
    (array_agg(reason ORDER BY leg DESC))[1] AS reason,
    (array_agg(usage ORDER BY leg DESC) FILTER (WHERE usage IS NOT NULL))[1] AS usage,
    (array_agg(rendered ORDER BY leg) FILTER (WHERE rendered IS NOT NULL))[1] AS rendered,
    (array_agg(coalesce(progress, value) ORDER BY leg DESC) FILTER (WHERE coalesce(progress, value) IS NOT NULL))[1]
        AS progress
FROM attempt LEFT JOIN live_progress ON live_progress.fence = attempt.fence
GROUP BY run_number, task_id, map_index, try_number;
