-- The first schema. Only the engine writes run, task_instance, attempt, xcom, tick_skip and the cursor of dag.
-- The CHECKs repeat the state lists of core/states.py: a wrong state must not survive even a wrong program.

CREATE TABLE bundle (            -- the source of a dag file: itself and the modules of the dags folder it imported
    hash        text PRIMARY KEY,
    file        text NOT NULL,
    files       jsonb NOT NULL,  -- relative path -> text
    stored_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE dag_file (          -- what is known of each file in the folder
    file        text PRIMARY KEY,
    bundle      text REFERENCES bundle,   -- last good one
    loaded_at   timestamptz,
    seconds     double precision,
    error       jsonb,           -- {"code","message","line","traceback","at"} of the newest load, null when it was good
    removed     boolean NOT NULL DEFAULT false
);

CREATE TABLE dag (
    dag_id      text PRIMARY KEY,
    file        text NOT NULL,
    version_id  bigint,          -- the newest version
    paused      boolean NOT NULL DEFAULT false,
    removed     boolean NOT NULL DEFAULT false,
    next_due_at timestamptz,     -- the next tick that has neither run nor skip
    first_seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dag_of_file ON dag (file);

CREATE TABLE dag_version (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id      text NOT NULL REFERENCES dag ON DELETE CASCADE,
    number      integer NOT NULL,
    spec        jsonb NOT NULL,
    spec_hash   text NOT NULL,
    bundle      text NOT NULL REFERENCES bundle,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (dag_id, number),
    UNIQUE (dag_id, spec_hash, bundle)
);

CREATE TABLE run (
    number      bigint PRIMARY KEY,
    dag_id      text NOT NULL REFERENCES dag ON DELETE CASCADE,
    run_id      text NOT NULL,
    run_type    text NOT NULL CHECK (run_type IN ('scheduled', 'manual')),
    state       text NOT NULL CHECK (state IN ('queued', 'running', 'success', 'failed', 'cancelled')),
    version_id  bigint NOT NULL REFERENCES dag_version,
    logical_date timestamptz NOT NULL,
    data_interval_start timestamptz NOT NULL,
    data_interval_end timestamptz NOT NULL,
    due_at      timestamptz,
    queued_at   timestamptz NOT NULL,
    started_at  timestamptz,
    ended_at    timestamptz,
    conf        jsonb NOT NULL DEFAULT '{}',
    reason      text,
    created_by  text NOT NULL,
    cancelling  boolean NOT NULL DEFAULT false,
    UNIQUE (dag_id, run_id),
    CHECK ((ended_at IS NOT NULL) = (state IN ('success', 'failed', 'cancelled'))),
    CHECK ((due_at IS NOT NULL) = (run_type = 'scheduled'))
);
-- A tick is one run or one recorded skip.
CREATE UNIQUE INDEX run_tick ON run (dag_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX run_live ON run (number) WHERE state IN ('queued', 'running');
CREATE INDEX run_of_dag ON run (dag_id, number DESC);
CREATE INDEX run_of_version ON run (version_id);   -- else each version that is deleted costs a scan of all runs

CREATE TABLE tick_skip (
    dag_id      text NOT NULL REFERENCES dag ON DELETE CASCADE,
    first       timestamptz NOT NULL,
    last        timestamptz NOT NULL,
    count       bigint NOT NULL CHECK (count > 0),
    reason      text NOT NULL,
    PRIMARY KEY (dag_id, first),
    CHECK (first <= last)
);

CREATE TABLE task_instance (
    run_number  bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    task_id     text NOT NULL,
    map_index   integer NOT NULL DEFAULT -1,
    state       text NOT NULL CHECK (state IN ('none', 'scheduled', 'queued', 'running', 'success', 'failed', 'skipped',
                    'upstream_failed', 'up_for_retry', 'waiting', 'restarting', 'cancelled', 'removed')),
    try_number  integer NOT NULL DEFAULT 0,
    max_tries   integer NOT NULL DEFAULT 1,
    fence       bigint,
    intent      text CHECK (intent IN ('cancel', 'restart', 'timeout', 'success', 'fail', 'skip')),
    queued_at   timestamptz,
    started_at  timestamptz,
    ended_at    timestamptz,
    retry_at    timestamptz,
    wait        jsonb,
    wait_until  timestamptz,
    reason      text,
    PRIMARY KEY (run_number, task_id, map_index),
    CHECK (state NOT IN ('queued', 'running', 'waiting', 'restarting') OR fence IS NOT NULL),
    CHECK ((state = 'up_for_retry') = (retry_at IS NOT NULL))
) WITH (fillfactor = 80);        -- a row changes four times or so: room on its page spares the index a new entry each time

CREATE TABLE attempt (
    fence       bigint PRIMARY KEY,
    run_number  bigint NOT NULL,
    task_id     text NOT NULL,
    map_index   integer NOT NULL,
    try_number  integer NOT NULL,
    state       text NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'success', 'failed', 'skipped',
                    'cancelled', 'lost')),
    queued_at   timestamptz NOT NULL,
    started_at  timestamptz,
    ended_at    timestamptz,
    pid         integer,
    exit_code   integer,
    signal      integer,
    reason      text,
    usage       jsonb,
    rendered    jsonb,
    UNIQUE (run_number, task_id, map_index, try_number),
    FOREIGN KEY (run_number, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE,
    CHECK ((ended_at IS NULL) = (state IN ('queued', 'running', 'waiting')))
);
CREATE INDEX attempt_live ON attempt (fence) WHERE state IN ('queued', 'running', 'waiting');
-- No second attempt while the first may live.
CREATE UNIQUE INDEX attempt_one_live ON attempt (run_number, task_id, map_index)
    WHERE state IN ('queued', 'running', 'waiting');

CREATE TABLE xcom (
    run_number  bigint NOT NULL,
    task_id     text NOT NULL,
    map_index   integer NOT NULL DEFAULT -1,
    key         text NOT NULL,
    value       jsonb NOT NULL,
    PRIMARY KEY (run_number, task_id, map_index, key),
    FOREIGN KEY (run_number, task_id, map_index) REFERENCES task_instance ON DELETE CASCADE
);

CREATE TABLE pool (
    name        text PRIMARY KEY,
    slots       integer NOT NULL CHECK (slots >= 0),
    description text
);
INSERT INTO pool (name, slots, description) VALUES ('default_pool', 128, 'Tasks that name no pool');

CREATE TABLE job (               -- what lives long and beats: daemon, runner, …
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,
    state       text NOT NULL CHECK (state IN ('running', 'ended', 'lost')),
    host        text NOT NULL,
    pid         integer NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    beat_at     timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    detail      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX job_running ON job (kind) WHERE state = 'running';

CREATE TABLE holder (            -- one row: which daemon works on this database (the lock itself is an advisory lock)
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    epoch       bigint NOT NULL,
    host        text NOT NULL,
    pid         integer NOT NULL,
    home        text NOT NULL,
    since       timestamptz NOT NULL
);

CREATE TABLE high_water (        -- one row: the greatest numbers that deleted history had, so that none is given twice
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    run_number  bigint NOT NULL,
    fence       bigint NOT NULL
);
INSERT INTO high_water (run_number, fence) VALUES (0, 0);

CREATE TABLE account (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    role        text NOT NULL CHECK (role IN ('admin')),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE login_link (        -- one-time; only the hash of its secret is kept
    hash        bytea PRIMARY KEY,
    account_id  bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    expires_at  timestamptz NOT NULL
);

CREATE TABLE session (           -- only the hash of the cookie is kept
    hash        bytea PRIMARY KEY,
    account_id  bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    csrf        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);

CREATE TABLE idempotency (       -- a POST repeated with the same key gets the same answer
    key         text PRIMARY KEY,
    status      integer NOT NULL,
    body        jsonb NOT NULL,
    stored_at   timestamptz NOT NULL DEFAULT now()
);
