-- What was put aside because it could not be taken: an event, a run, a dag. Nothing else depends on these rows.
CREATE TABLE quarantine (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    signature   text NOT NULL UNIQUE,   -- the same thing with the same error is one row
    at          timestamptz NOT NULL DEFAULT now(),   -- the last time
    times       integer NOT NULL DEFAULT 1,
    kind        text NOT NULL,          -- the event's name, or run | dag | row | command | timer
    dag_id      text,
    run_id      text,
    task_id     text,
    fence       bigint,
    event       jsonb NOT NULL,
    error       text NOT NULL,
    traceback   text NOT NULL,
    outcome     text NOT NULL           -- in words, what became of it
);

-- A dag that somebody deleted: it is gone for everybody, and its history goes in batches.
ALTER TABLE dag ADD COLUMN forgotten boolean NOT NULL DEFAULT false;
CREATE INDEX dag_forgotten ON dag (dag_id) WHERE forgotten;

-- The writes of a daemon that do not go through the connection with its lock carry its epoch as a setting of their
-- session. Once another daemon has taken the database they are refused. Sessions without the setting (the one with the
-- lock itself, a person with psql) are not asked. FOR SHARE: who takes the database waits for writes that have begun.
CREATE FUNCTION under_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mine text := current_setting('fluxd.epoch', true);
BEGIN
    IF mine <> '' THEN
        PERFORM FROM holder WHERE epoch = mine::bigint FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another fluxd has taken this database' USING ERRCODE = 'FX001';
        END IF;
    END IF;
    RETURN NULL;
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['bundle', 'dag_file', 'dag', 'dag_version', 'run', 'tick_skip', 'task_instance',
        'attempt', 'live_progress', 'task_state', 'xcom', 'pool', 'job', 'high_water', 'account', 'login_link', 'session',
        'idempotency', 'quarantine']
    LOOP
        EXECUTE format('CREATE TRIGGER under_epoch BEFORE INSERT OR UPDATE OR DELETE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION under_epoch()', name);
    END LOOP;
END
$$;
