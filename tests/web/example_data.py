"""Made-up but lifelike data for looking at pages: thirty dags with histories, failures with reasons, logs.

Everything is saved through the store, as the engine does it, so it obeys all its checks.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fluxd.core.commands import DagCursor, Saves, Skip, XCom
from fluxd.core.model import Attempt, Instance, Run
from fluxd.core.spec import DagSpec, dag_from_json
from fluxd.core.states import AttemptState, RunState, State
from fluxd.core.timetable import make_timetable
from fluxd.store.dags import store_error, store_load
from fluxd.store.database import Database
from fluxd.store.turns import save


@dataclass(frozen=True)
class Sample:
    dag_id: str
    schedule: dict[str, Any]
    shape: str
    tags: tuple[str, ...]
    history: str = ""  # newest last: s f c r q; before it all is well
    reason: str = ""
    timezone: str = "UTC"
    owner: str = "data"
    paused: bool = False
    seconds: float = 30.0
    description: str = ""
    warnings: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    runs: int = 40  # as many are there, at most


def cron(expression: str) -> dict[str, Any]:
    return {"kind": "cron", "expression": expression}


def every(seconds: float) -> dict[str, Any]:
    return {"kind": "interval", "seconds": seconds}


ON_TRIGGER = {"kind": "none"}

CITIES = ("berlin", "lyon", "madrid", "oslo", "porto", "rome", "turin", "wien")
# name: (task, operator, upstream, group)
SHAPES: dict[str, list[tuple[str, str, list[str], str | None]]] = {
    "etl": [
        ("landed", "FileSensor", [], None),
        ("extract", "BashOperator", ["landed"], None),
        ("clean", "PythonOperator", ["extract"], None),
        ("load", "BashOperator", ["clean"], None),
        ("check_rows", "PythonOperator", ["load"], "checks"),
        ("check_totals", "PythonOperator", ["load"], "checks"),
        ("publish", "BashOperator", ["check_rows", "check_totals"], None),
    ],
    "sales": [
        ("orders_landed", "FileSensor", [], None),
        ("prices_landed", "FileSensor", [], None),
        ("stage.orders", "BashOperator", ["orders_landed"], "stage"),
        ("stage.prices", "BashOperator", ["prices_landed"], "stage"),
        ("stage.currencies", "PythonOperator", [], "stage"),
        ("join", "PythonOperator", ["stage.orders", "stage.prices", "stage.currencies"], None),
        ("load", "BashOperator", ["join"], None),
        ("checks.rows", "PythonOperator", ["load"], "checks"),
        ("checks.totals", "PythonOperator", ["load"], "checks"),
        ("checks.duplicates", "PythonOperator", ["load"], "checks"),
        ("report_eu", "PythonOperator", ["checks.rows", "checks.totals", "checks.duplicates"], None),
        ("report_us", "PythonOperator", ["checks.rows", "checks.totals", "checks.duplicates"], None),
        ("mail_finance", "BashOperator", ["report_eu", "report_us", "load"], None),
    ],
    "chain": [(f"step_{n:02d}", "PythonOperator", [f"step_{n - 1:02d}"] if n else [], None) for n in range(8)],
    "small": [("fetch", "BashOperator", [], None), ("store", "PythonOperator", ["fetch"], None)],
    "one": [("run", "BashOperator", [], None)],
    "fan": [
        ("list_shops", "PythonOperator", [], None),
        *[(f"shop_{city}", "BashOperator", ["list_shops"], "shops") for city in CITIES],
        (
            "merge",
            "PythonOperator",
            [f"shop_{city}" for city in CITIES],
            None,
        ),
        ("publish", "BashOperator", ["merge"], None),
    ],
}
SAMPLES = [
    Sample("ads_spend_import", cron("15 * * * *"), "small", ("marketing",), seconds=8),
    Sample("backup_warehouse", cron("30 2 * * *"), "one", ("ops",), owner="ops", seconds=1900),
    Sample(
        "churn_features",
        cron("0 4 * * 1"),
        "chain",
        ("ml",),
        owner="ml",
        seconds=640,
        history="f",
        reason="task step_03 failed: exit code 137, the kernel ended it for want of memory (8.0 GiB used)",
    ),
    Sample("clickstream_hourly", every(3600), "etl", ("web", "core"), seconds=210, history="r"),
    Sample("crm_contacts_sync", cron("*/20 * * * *"), "small", ("crm",), seconds=14, history="fss"),
    Sample(
        "currency_rates",
        cron("5 16 * * 1-5"),
        "small",
        ("finance",),
        timezone="Europe/Berlin",
        owner="finance",
        seconds=4,
    ),
    Sample("customer_360", cron("0 5 * * *"), "etl", ("core", "crm"), seconds=900),
    Sample("dim_products", cron("20 3 * * *"), "etl", ("warehouse",), seconds=95),
    Sample(
        "dim_stores",
        cron("25 3 * * *"),
        "fan",
        ("warehouse",),
        seconds=60,
        history="sfcs",
        reason="task shop_oslo failed: HTTP 503 from https://oslo.example.net/stock after 3 tries",
    ),
    Sample("email_campaigns", cron("0 8 * * 2,4"), "chain", ("marketing",), seconds=45, paused=True),
    Sample("fraud_scores", every(300), "small", ("ml", "core"), owner="ml", seconds=22, history="rs"),
    Sample("gdpr_erasure", cron("0 1 * * 0"), "chain", ("legal",), owner="legal", seconds=330),
    Sample(
        "github_metrics",
        cron("0 */6 * * *"),
        "small",
        ("engineering",),
        seconds=19,
        history="ff",
        reason="task fetch failed: exit code 22, curl: (22) The requested URL returned error: 401",
    ),
    Sample("hr_headcount", cron("0 7 1 * *"), "one", ("hr",), owner="hr", seconds=12),
    Sample("inventory_levels", cron("*/10 * * * *"), "etl", ("shops",), seconds=38, history="sr"),
    Sample("iot_gateway_rollup", every(900), "small", ("iot",), seconds=33),
    Sample("ledger_close", ON_TRIGGER, "chain", ("finance",), owner="finance", seconds=420),
    Sample("log_compaction", cron("40 * * * *"), "one", ("ops",), owner="ops", seconds=75),
    Sample(
        "marketing_attribution",
        cron("0 9 * * *"),
        "fan",
        ("marketing",),
        seconds=480,
        history="f",
        reason="task merge failed: KeyError: 'utm_source' (attribution.py, line 88)",
    ),
    Sample("partner_feeds", cron("0 0,12 * * *"), "fan", ("partners",), seconds=140),
    Sample(
        "payments_reconcile",
        cron("0 6 * * 1-5"),
        "etl",
        ("finance", "core"),
        timezone="Europe/Paris",
        owner="finance",
        seconds=260,
    ),
    Sample(
        "price_scraper",
        cron("*/30 6-22 * * *"),
        "fan",
        ("shops",),
        seconds=90,
        paused=True,
        history="cf",
        reason="task shop_rome failed: execution_timeout of 300 s exceeded",
    ),
    Sample("recommendations_train", cron("0 22 * * 6"), "chain", ("ml",), owner="ml", seconds=5400),
    Sample("refunds_export", cron("10 5 * * *"), "small", ("finance",), owner="finance", seconds=9),
    Sample(
        "sales",
        cron("0 6 * * *"),
        "sales",
        ("sales", "core"),
        timezone="Europe/Paris",
        owner="sales",
        seconds=310,
        history="ssfssssrf",
        reason="task load failed: exit code 3, psql:load.sql:14: ERROR: duplicate key value violates unique constraint"
        ' "sales_pkey"',
        description="Orders and prices of the day into the warehouse, checked, with a report for each region",
        warnings=("Importing the file leaves 1 thread behind (statsd): each attempt imports it anew.",),
        params={"region": "eu", "full_refresh": False},
    ),
    Sample("search_index", every(1800), "chain", ("web",), seconds=120),
    Sample("seo_crawl", cron("0 3 * * 3"), "one", ("web", "marketing"), seconds=2600),
    Sample("sessions_15min", every(900), "etl", ("web",), seconds=64, history="rq"),
    Sample("shipping_labels", cron("*/5 * * * *"), "one", ("shops",), seconds=2),
    Sample("supplier_scorecards", cron("0 10 1 1,4,7,10 *"), "chain", ("partners",), seconds=88),
    Sample("support_tickets", cron("0 * * * *"), "small", ("crm",), seconds=17),
    Sample("tax_reports", cron("0 6 10 * *"), "etl", ("finance", "legal"), owner="finance", seconds=700),
    Sample("warehouse_vacuum", cron("0 2 * * 0"), "one", ("ops",), owner="ops", seconds=3100),
    Sample("weather", cron("0 0 * * *"), "etl", ("example",), seconds=3),
]
SOURCE = '''"""Orders and prices of the day into the warehouse."""

from fluxd import DAG, task
from fluxd.ops import BashOperator
from fluxd.sensors import FileSensor

REGIONS = ["eu", "us"]

with DAG("sales", schedule="0 6 * * *", start_date="2026-01-01", timezone="Europe/Paris", params={"region": "eu"}):
    landed = FileSensor(task_id="orders_landed", path="/in/orders-{{ ds }}.csv", timeout="2h")
    load = BashOperator(task_id="load", bash_command="load.sh {{ params.region | q }} {{ ds }}", retries=3)

    @task
    def report(region: str) -> str:
        # one report for each region, read by finance at 8
        return f"report for {region}: {21 + 21} rows"

    landed >> load >> [report.override(task_id=f"report_{region}")(region) for region in REGIONS]
'''
LOG = """\x1b[1mload.sh\x1b[0m region=eu day={day}
connecting to warehouse.example.net:5432 as loader
\x1b[32mok\x1b[0m   staged 48 211 orders, 1 204 prices
COPY sales FROM '/stage/sales-{day}.csv'
\x1b[33mwarning\x1b[0m: 3 rows without a currency, taken as EUR
\x1b[31mERROR\x1b[0m:  duplicate key value violates unique constraint "sales_pkey"
DETAIL:  Key (order_id, line)=(881204, 2) already exists.
CONTEXT:  COPY sales, line 31877
load.sh: exit 3 after 41 s
"""


def spec_of(sample: Sample, start: datetime) -> dict[str, Any]:
    tasks = [
        {
            "task_id": task_id,
            "operator": operator,
            "kind": "sensor" if operator.endswith("Sensor") else "operator",
            "upstream": upstream,
            "group": group,
            "retries": 2 if task_id == "load" else 0,
            "fields": {"bash_command": f"{task_id}.sh {{{{ params.region | q }}}} {{{{ ds }}}}"}
            if operator == "BashOperator"
            else {},
        }
        for task_id, operator, upstream, group in SHAPES[sample.shape]
    ]
    return {
        "dag_id": sample.dag_id,
        "tasks": tasks,
        "schedule": sample.schedule,
        "timezone": sample.timezone,
        "start_date": start.isoformat(),
        "max_active_runs": 4,
        "tags": list(sample.tags),
        "owner": sample.owner,
        "description": sample.description or None,
        "warnings": list(sample.warnings),
        "params": sample.params,
    }


class Filler:
    """Makes the rows of one dag after the other; numbers and fences rise over all of them."""

    def __init__(self, now: datetime, logs: Path) -> None:
        self.now = now
        self.logs = logs
        self.chance = random.Random(7)
        self.number = 0
        self.fence = 0

    def ticks(self, spec: DagSpec, count: int) -> list[tuple[datetime, datetime, datetime | None]]:
        """The last intervals that are due, oldest first: (start, end, due)."""
        timetable = make_timetable(spec)
        due = timetable.latest_due(self.now)
        found: list[tuple[datetime, datetime, datetime | None]] = []
        while due is not None and len(found) < count:
            found.append((*timetable.covered(due), due))
            due = timetable.due_before(due)
        if not found:  # by hand, on some days
            moments = [self.now - timedelta(days=9 * n, hours=n + 1) for n in range(6)]
            found = [(at, at, None) for at in moments]
        return found[::-1]

    def fill(self, sample: Sample, spec: DagSpec, version_id: int) -> Saves:
        saves = Saves()
        history = sample.history.replace(" ", "")
        ticks = self.ticks(spec, sample.runs)
        outcomes = ["s"] * (len(ticks) - len(history)) + list(history)
        for (start, end, due), outcome in zip(ticks, outcomes, strict=True):
            self.run(saves, sample, spec, version_id, start, end, due, outcome)
        timetable = make_timetable(spec)
        saves.cursors.append(DagCursor(sample.dag_id, timetable.due_after(self.now), sample.paused))
        if sample.dag_id == "sales":
            saves.skips.append(
                Skip(
                    "sales",
                    ticks[0][2] - timedelta(days=4),
                    ticks[0][2] - timedelta(days=2),
                    3,
                    "paused by admin; catchup is off",
                )
            )  # type: ignore[operator]
        return saves

    def run(
        self,
        saves: Saves,
        sample: Sample,
        spec: DagSpec,
        version_id: int,
        start: datetime,
        end: datetime,
        due: datetime | None,
        outcome: str,
    ) -> None:
        self.number += 1
        state = {
            "s": RunState.SUCCESS,
            "f": RunState.FAILED,
            "c": RunState.CANCELLED,
            "r": RunState.RUNNING,
            "q": RunState.QUEUED,
        }[outcome]
        began = (due or start) + timedelta(seconds=0.02)
        whole = sample.seconds * self.chance.lognormvariate(0, 0.25)
        if state is RunState.RUNNING:
            began = max(began, self.now - timedelta(seconds=whole * 0.6))
        else:  # what has ended has ended by now
            whole = min(whole, (self.now - began).total_seconds() / 3)
        run = Run(
            number=self.number,
            dag_id=sample.dag_id,
            run_id=f"scheduled__{start:%Y%m%dT%H%M%SZ}" if due else f"manual__{start:%Y%m%dT%H%M%S.%fZ}",
            run_type="scheduled" if due else "manual",
            state=state,
            version_id=version_id,
            logical_date=start,
            data_interval_start=start,
            data_interval_end=end,
            due_at=due,
            queued_at=began,
            started_at=None if state is RunState.QUEUED else began,
            created_by="scheduler" if due else "admin",
        )
        reason = sample.reason or "task store failed: exit code 1"
        failing = reason.split()[1] if state is RunState.FAILED else None
        last = self.tasks(saves, run, spec, whole, failing, reason)
        if state in (RunState.SUCCESS, RunState.FAILED, RunState.CANCELLED):
            run.ended_at = last
        if state is RunState.FAILED:
            run.reason = reason
        if state is RunState.CANCELLED:
            run.reason = "cancelled by admin"
        saves.runs.append(run)

    def tasks(self, saves: Saves, run: Run, spec: DagSpec, whole: float, failing: str | None, reason: str) -> datetime:
        """The instances and tries of a run; gives when the last one ended."""
        assert run.queued_at
        ended: dict[str, datetime] = {}
        broken: set[str] = set()
        share = whole / max(1, len(spec.tasks)) * 1.6
        last = run.queued_at
        stop_at = len(spec.tasks) // 2 if run.state in (RunState.RUNNING, RunState.CANCELLED) else None
        for index, task in enumerate(spec.tasks):
            instance = Instance(run.number, task.task_id, max_tries=task.retries + 1)
            saves.instances.append(instance)
            if run.state is RunState.QUEUED:
                continue
            if broken & set(task.upstream):
                broken.add(task.task_id)
                instance.state, instance.ended_at = State.UPSTREAM_FAILED, last
                instance.reason = f"its upstream {min(broken & set(task.upstream))} did not succeed"
                continue
            if stop_at is not None and index > stop_at:
                if run.state is RunState.CANCELLED:
                    instance.state, instance.ended_at = State.CANCELLED, last
                continue
            begin = max([ended[up] for up in task.upstream if up in ended], default=run.queued_at) + timedelta(
                milliseconds=4
            )
            finish = begin + timedelta(seconds=share * self.chance.uniform(0.3, 1.2))
            if run.state is RunState.RUNNING:
                begin, finish = min(begin, self.now), min(finish, self.now)
            state = State.SUCCESS
            if task.task_id == failing:
                state = State.FAILED
                broken.add(task.task_id)
                instance.reason = reason.partition(" failed: ")[2]
            if stop_at == index:
                state = State.RUNNING if run.state is RunState.RUNNING else State.CANCELLED
            if state is State.RUNNING and task.operator == "FileSensor":
                state = State.WAITING
            tries = instance.max_tries if state is State.FAILED else 1
            for number in range(1, tries + 1):
                last = max(last, self.attempt(saves, run, instance, number, number == tries, state, begin, finish))
            ended[task.task_id] = finish
        return last

    def attempt(
        self,
        saves: Saves,
        run: Run,
        instance: Instance,
        number: int,
        is_last: bool,
        state: State,
        begin: datetime,
        finish: datetime,
    ) -> datetime:
        self.fence += 1
        mine = state if is_last else State.FAILED
        live = mine in (State.RUNNING, State.WAITING)
        part = (finish - begin) / 3
        if not is_last:
            begin, finish = begin + part * (number - 1) * 0.5, begin + part * number * 0.5
        elif number > 1:
            begin = begin + part * (number - 1) * 0.6
        finish = max(finish, begin)
        instance.state, instance.try_number, instance.fence = mine, number, self.fence
        instance.queued_at, instance.started_at = begin - timedelta(milliseconds=9), begin
        instance.ended_at = None if live else finish
        saves.attempts.append(
            Attempt(
                fence=self.fence,
                run_number=run.number,
                task_id=instance.task_id,
                map_index=-1,
                try_number=number,
                state=AttemptState(mine.value),
                queued_at=begin - timedelta(milliseconds=9),
                started_at=begin,
                ended_at=None if live else finish,
                pid=4000 + self.fence % 20000,
                exit_code=None if live else 3 if mine is State.FAILED else 0,
                reason=instance.reason if mine is State.FAILED else None,
                usage=None if live else {"user_s": 1.2, "system_s": 0.3, "max_rss_kb": 48_000},
                progress={"rows": 48211, "bytes": 3 * 1024 * 1024, "note": "chunk 9 of 12"},
                rendered={"bash_command": f"{instance.task_id}.sh 'eu' {run.logical_date:%Y-%m-%d}"},
            )
        )
        if mine is State.SUCCESS:
            saves.xcoms.append(
                XCom(
                    run.number,
                    instance.task_id,
                    -1,
                    "return_value",
                    {"rows": 48211, "file": f"/stage/{instance.task_id}.csv"},
                )
            )
        folder = self.logs / run.dag_id / run.run_id / instance.task_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.log").write_text(LOG.format(day=f"{run.logical_date:%Y-%m-%d}"))
        return finish


async def fill(db: Database, logs: Path, now: datetime, samples: list[Sample] = SAMPLES) -> None:
    """Save all samples into an empty database of Flux; logs go below `logs`."""
    filler = Filler(now, logs)
    for sample in samples:
        start = now - timedelta(days=900)
        spec = spec_of(sample, start)
        file = f"{sample.tags[0]}/{sample.dag_id}.py"
        loaded = await store_load(db.writer, file, f"{sample.dag_id:0>16.16}", {file: SOURCE}, [spec], 0.02)
        version_id = loaded.dags[0][1]
        for saves in _whole(filler, sample, dag_from_json(spec), version_id):
            await save(db.writer, saves)
    for file, code, line, message in BROKEN:
        await store_error(
            db.writer, file, {"code": code, "line": line, "message": message, "traceback": None, "at": now.isoformat()}
        )


def _whole(filler: Filler, sample: Sample, spec: DagSpec, version_id: int) -> Iterator[Saves]:
    yield filler.fill(sample, spec, version_id)


BROKEN = [
    (
        "marketing/ab_tests.py",
        "FLX-2003",
        41,
        "marketing/ab_tests.py, line 41: NameError: name 'BashOperater' is not defined; did you mean 'BashOperator'?",
    ),
    (
        "finance/tax_reports.py",
        "FLX-1010",
        17,
        "The dag 'tax_reports' has a cycle: load → check_rows → publish → load.",
    ),
]
