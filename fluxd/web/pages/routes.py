"""The addresses of the pages, in one list: what is not here does not exist."""

from aiohttp import web

from fluxd.web.pages import actions, dag, dags, login, quarantine, run, source, task

_DAG = "/dags/{dag_id}"
_RUN = _DAG + "/runs/{run_id}"

ROUTES = [
    web.get("/", dags.front),
    web.get("/login", login.ask),
    web.get("/login/{secret}", login.look_at_link),
    web.post("/login/{secret}", login.use_link),
    web.post("/logout", login.leave),
    web.post("/theme", login.choose_theme),
    web.get("/dags", dags.page),
    web.get("/quarantine", quarantine.page),
    web.get(_DAG, dag.page),
    web.get(_DAG + "/trigger", dag.page),
    web.get(_DAG + "/source", source.page),
    web.get(_RUN, run.page),
    web.get(_RUN + "/tasks/{task_id}", task.page),
    web.post(_DAG + "/pause", actions.pause),
    web.post(_DAG + "/trigger", actions.trigger),
    web.post(_RUN + "/cancel", actions.cancel),
    web.post(_RUN + "/clear", actions.clear),
    web.post(_RUN + "/mark", actions.mark),
]
