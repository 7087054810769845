"""The names that the context of a task has: what templates and the parameters of functions may be called."""

DATES = (
    *("logical_date", "execution_date", "data_interval_start", "data_interval_end", "ds", "ds_nodash"),
    *("ts", "ts_nodash", "ts_nodash_with_tz", "yesterday_ds", "yesterday_ds_nodash", "tomorrow_ds"),
    *("tomorrow_ds_nodash", "prev_execution_date", "prev_ds", "prev_ds_nodash", "next_execution_date", "next_ds"),
    *("next_ds_nodash", "prev_data_interval_start_success", "prev_data_interval_end_success"),
    *("prev_start_date_success", "prev_end_date_success", "prev_execution_date_success", "prev_logical_date_success"),
)
CONTEXT_NAMES = frozenset(
    (
        *DATES,
        *("context", "dag", "dag_run", "task", "ti", "task_instance", "task_instance_key_str", "run_id", "map_index"),
        *("try_number", "max_tries", "conf", "params", "var", "conn", "macros", "test_mode", "templates_dict"),
        *("inlets", "outlets"),
    )
)
