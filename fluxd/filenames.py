"""Which files of the dags folder are dag files: the daemon, the runner and fluxctl must agree on it."""


def is_dag_file(relative: str) -> bool:
    """Every .py file, except hidden ones and those whose name, or a folder of theirs, begins with `_`: these are
    modules of others. `relative`: the path below the dags folder, with slashes.
    """
    return relative.endswith(".py") and not any(part.startswith(("_", ".")) for part in relative.split("/"))
