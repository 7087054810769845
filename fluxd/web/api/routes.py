"""The table of what can be asked: handlers are mounted from it, and openapi.json is written from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from fluxd.core.progress import COUNT_MAX
from fluxd.core.states import RunState
from fluxd.store.pools import SLOTS_MAX
from fluxd.web.api import dags, logs, pools, runs, system, tasks, worker
from fluxd.web.api import schemas as s
from fluxd.web.api.validation import Ask, Field

PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Route:
    """One address: method, path below PREFIX, what it does in a sentence, what it takes, what it gives."""

    method: str
    path: str
    handler: Callable[[Ask], Awaitable[web.StreamResponse]]
    about: str
    answer: s.Schema
    query: tuple[Field, ...] = ()
    body: tuple[Field, ...] = ()
    status: int = 200
    media: str = "application/json"
    # Whether an Idempotency-Key is heeded; an answer that holds a secret must not be kept.
    keyed: bool = True


LIMIT = Field("limit", "integer", "How many at most", default=100, least=1, most=1000)
CURSOR = Field("cursor", "text", "next_cursor of the page before")
MAP_INDEX = Field("map_index", "integer", "Which one of a mapped task", default=-1, least=-1, most=2**31 - 1)
STATES = Field(
    "state", "texts", "Only runs in these states, separated by commas", choices=tuple(str(state) for state in RunState)
)
RUNS_QUERY = (
    STATES,
    Field("run_type", "text", "Only runs of this type", choices=("scheduled", "manual")),
    Field("since", "time", "Only runs with this logical date or a later one"),
    Field("until", "time", "Only runs with an earlier logical date"),
    LIMIT,
    CURSOR,
)
TASK_IDS = Field("task_ids", "names", "Which tasks, one at least; all where it is left out")
WHICH_MAP_INDEX = Field(
    "map_index", "integer", "Which one of a mapped task; all where none is named", least=-1, most=2**31 - 1
)

DAG = "/dags/{dag_id}"
RUN = DAG + "/runs/{run_id}"
TASK = RUN + "/tasks/{task_id}"
ATTEMPT = "/worker/attempts/{fence}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/status", system.status, "How the daemon is and what lives", s.STATUS),
    Route(
        "GET",
        "/quarantine",
        system.put_aside,
        "What could not be taken and was put aside, with its evidence; the newest first",
        s.record({"quarantine": s.many(s.ASIDE)}),
        query=(Field("limit", "integer", "How many at most", default=100, least=1, most=1000),),
    ),
    Route(
        "GET",
        "/dags",
        dags.list_dags,
        "The dags, by id",
        s.page("dags", "DagInList"),
        query=(
            Field("tag", "text", "Only dags with this tag"),
            Field("paused", "boolean", "Only paused dags, or only those that are not"),
            Field("removed", "boolean", "Also dags whose file is gone", default=False),
            LIMIT,
            CURSOR,
        ),
    ),
    Route("GET", DAG, dags.show, "One dag with its tasks", s.named("Dag")),
    Route(
        "DELETE",
        DAG,
        dags.forget,
        "Delete a dag with its history; refused while its file is there, or runs live",
        s.FORGOTTEN,
    ),
    Route(
        "POST",
        DAG + "/trigger",
        dags.trigger,
        "Start a run now",
        s.named("Run"),
        body=(
            Field("run_id", "text", "The id of the run; made from the time where none is given"),
            Field("logical_date", "time", "The time it is for; without a zone it is meant in the dag's; default now"),
            Field("conf", "object", "Values for this run, over the dag's params"),
        ),
        status=201,
    ),
    Route("POST", DAG + "/pause", dags.pause, "No new runs; those that live go on", s.PAUSED),
    Route("POST", DAG + "/unpause", dags.unpause, "New runs again", s.PAUSED),
    Route(
        "GET",
        DAG + "/next",
        dags.upcoming,
        "The runs to come, as if the dag were not paused",
        s.NEXT,
        query=(
            Field("from", "time", "The first is due at or after this; without a zone it is meant in the dag's"),
            Field("count", "integer", "How many", default=10, least=1, most=1000),
        ),
    ),
    Route(
        "GET",
        DAG + "/source",
        dags.source,
        "The dag's file, and the modules of the dags folder that it imports, as stored with its version",
        s.SOURCE,
        query=(Field("version", "integer", "Which version; default the newest", least=1, most=2**31 - 1),),
    ),
    Route(
        "GET",
        "/dag-errors",
        dags.errors,
        "The dag files that cannot be loaded, and why",
        s.record({"errors": s.many(s.named("DagError"))}),
    ),
    Route(
        "GET",
        "/runs",
        runs.list_runs,
        "The runs of all dags, newest first",
        s.page("runs", "Run"),
        query=RUNS_QUERY,
    ),
    Route(
        "GET", DAG + "/runs", runs.list_runs, "The runs of a dag, newest first", s.page("runs", "Run"), query=RUNS_QUERY
    ),
    Route("GET", RUN, runs.show, "One run with its task instances", s.named("RunWithTasks")),
    Route(
        "GET",
        RUN + "/previous",
        runs.previous,
        "The run with the nearest earlier logical date",
        s.record({"run": s.maybe(s.named("Run"))}),
        query=(STATES,),
    ),
    Route(
        "GET",
        RUN + "/wait",
        runs.wait,
        "The run as soon as it has ended, or as it is when the time is over (header X-Flux-Ended)",
        s.named("RunWithTasks"),
        query=(Field("timeout", "number", "Seconds to wait", default=60.0, least=0, most=3600),),
    ),
    Route("POST", RUN + "/cancel", runs.cancel, "Stop a run and what runs of it", s.named("RunWithTasks")),
    Route(
        "POST",
        RUN + "/clear",
        runs.clear,
        "Run tasks again; those that run are stopped first",
        s.record({"cleared": s.many(s.KEY), "note": s.maybe(s.TEXT)}),
        body=(
            TASK_IDS,
            WHICH_MAP_INDEX,
            Field("downstream", "boolean", "Also all that comes after them", default=True),
            Field("only_failed", "boolean", "Of these only what failed", default=False),
        ),
    ),
    Route(
        "POST",
        RUN + "/mark",
        runs.mark,
        "Say how tasks ended; those that run are stopped",
        s.record({"marked": s.many(s.KEY)}),
        body=(
            Field("state", "text", "How", required=True, choices=("success", "failed", "skipped")),
            TASK_IDS,
            WHICH_MAP_INDEX,
        ),
    ),
    Route(
        "GET",
        RUN + "/tasks",
        tasks.list_tasks,
        "The task instances of a run, in the dag's order",
        s.record({"dag_id": s.TEXT, "run_id": s.TEXT, "tasks": s.many(s.named("TaskInstance"))}),
    ),
    Route("GET", TASK, tasks.show, "One task instance with its tries", s.named("Task"), query=(MAP_INDEX,)),
    Route(
        "GET",
        TASK + "/tries/{try_number}/log",
        logs.log,
        "The bytes of a try's log (headers X-Flux-Log-Size, X-Flux-Log-Offset, X-Flux-Ended)",
        s.TEXT,
        query=(
            MAP_INDEX,
            Field("offset", "integer", "The first byte; negative: so many from the end", default=0, least=-(2**62)),
            Field("limit", "integer", "How many bytes at most; default all", least=0, most=2**62),
            Field("follow", "boolean", "Go on until the try has ended", default=False),
        ),
        media="text/plain",
    ),
    Route(
        "GET",
        TASK + "/xcoms",
        tasks.xcoms,
        "What a task handed on",
        s.record({"xcoms": s.many(s.XCOM)}),
        query=(Field("map_index", "integer", "Which one of a mapped task; default all", least=-1, most=2**31 - 1),),
    ),
    Route("GET", TASK + "/xcoms/{key}", tasks.xcom, "One value that a task handed on", s.XCOM, query=(MAP_INDEX,)),
    Route(
        "GET", "/pools", pools.list_pools, "The pools and what is used", s.record({"pools": s.many(s.named("Pool"))})
    ),
    Route(
        "PUT",
        "/pools/{name}",
        pools.set_pool,
        "Make a pool, or change its slots",
        s.POOL_SET,
        body=(
            Field("slots", "integer", "How many", required=True, least=0, most=SLOTS_MAX),
            Field("description", "text", "What it is for"),
        ),
    ),
    Route(
        "POST",
        ATTEMPT + "/progress",
        worker.tell_progress,
        "From a running task: how far it is",
        s.record({"progress": s.maybe(s.PROGRESS)}),
        body=(
            Field("rows", "integer", "How many so far", least=0, most=COUNT_MAX),
            Field("bytes", "integer", "How many so far", least=0, most=COUNT_MAX),
            Field("note", "text", "In a few words"),
        ),
        keyed=False,
    ),
    Route("GET", ATTEMPT + "/state", worker.get_state, "From a running task: what it kept", s.STATE),
    Route(
        "PUT",
        ATTEMPT + "/state",
        worker.set_state,
        "From a running task: what its next try is to know, in place of what it kept",
        s.STATE,
        body=(Field("state", "object", "At most 64 KiB", required=True),),
    ),
    Route(
        "GET",
        ATTEMPT + "/xcom",
        worker.xcom,
        "From a running task: one value that a task of its run handed on",
        s.record({"value": s.ANY}),
        query=(
            Field("task_id", "text", "Which task", required=True),
            Field("key", "text", "Which value", required=True),
            MAP_INDEX,
        ),
    ),
    Route(
        "GET",
        ATTEMPT + "/previous-success",
        worker.previous_success,
        "From a running task: the times of the successful run before its own",
        s.record({"run": s.maybe(s.record(s.PREVIOUS_SUCCESS))}),
    ),
    Route(
        "POST",
        "/users/login-link",
        system.login_link,
        "A new one-time login link",
        s.LOGIN_LINK,
        body=(Field("name", "text", "Whose", default="admin"),),
        status=201,
        keyed=False,
    ),
)
