-- The column says why an attempt was told to stop; now it is called so.
ALTER TABLE task_instance RENAME COLUMN intent TO stop_reason;
