"""From "start this attempt" to the message that an executor sends: paths, environment, and what the task may know.

The message holds everything the child needs, so that a child never has to ask the database: the run, the merged
params, and what its direct upstreams handed on.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fluxd.config import Settings
from fluxd.core.commands import Saves, StartAttempt
from fluxd.core.model import InstanceKey, Run
from fluxd.core.spec import DagSpec
from fluxd.core.states import RUN_FINISHED
from fluxd.core.timetable import rfc3339

VERSIONS_KEPT = 2000


@dataclass(frozen=True)
class Version:
    """What the executor must know of a dag version: its spec, and the source it was made from."""

    spec: DagSpec
    file: str
    bundle: str


XComs = dict[InstanceKey, dict[str, Any]]  # what an instance handed on, by key
NOT_MAPPED = -1


class Launcher:
    """Makes start messages. Remembers which instances of live runs have XComs, so that most starts need no query."""

    def __init__(
        self,
        settings: Settings,
        *,
        version: Callable[[int], Awaitable[Version]],
        xcoms: Callable[[list[InstanceKey]], Awaitable[XComs]],
        connections: dict[str, str],
    ) -> None:
        self._settings = settings
        self._load_version = version
        self._load_xcoms = xcoms
        self._versions: OrderedDict[int, Version] = OrderedDict()
        self._with_xcoms: dict[int, set[InstanceKey]] = {}
        self._environment = {"FLUX_HOME": str(settings.home)}
        self._secrets = {f"FLUX_CONN_{name.upper()}": url for name, url in connections.items()}

    def note(self, saves: Saves) -> None:
        """Learn from a saved turn which instances of live runs have XComs."""
        for dropped in saves.xcoms_dropped:
            self._with_xcoms.get(dropped[0], set()).discard(dropped)
        self.recall([(xcom.run_number, xcom.task_id, xcom.map_index) for xcom in saves.xcoms])
        for run in saves.runs:
            if run.state in RUN_FINISHED:
                self._with_xcoms.pop(run.number, None)

    def recall(self, with_xcoms: list[InstanceKey]) -> None:
        """These instances of live runs have XComs."""
        for key in with_xcoms:
            self._with_xcoms.setdefault(key[0], set()).add(key)

    async def version(self, version_id: int) -> Version:
        known = self._versions.get(version_id)
        if known is None:
            known = self._versions[version_id] = await self._load_version(version_id)
            if len(self._versions) > VERSIONS_KEPT:
                self._versions.popitem(last=False)
        return known

    async def messages(self, starts: list[StartAttempt]) -> list[dict[str, Any]]:
        versions = {start.version_id: await self.version(start.version_id) for start in starts}
        wanted = [
            key
            for start in starts
            if (having := self._with_xcoms.get(start.run.number))
            for upstream in versions[start.version_id].spec.by_id[start.instance.task_id].upstream
            if (key := (start.run.number, upstream, NOT_MAPPED)) in having
        ]
        xcoms = await self._load_xcoms(wanted) if wanted else {}
        return [self._message(start, versions[start.version_id], xcoms) for start in starts]

    def _message(self, start: StartAttempt, version: Version, xcoms: XComs) -> dict[str, Any]:
        run, instance, settings = start.run, start.instance, self._settings
        task = version.spec.by_id[instance.task_id]
        folder = instance.task_id if instance.map_index < 0 else f"{instance.task_id}.{instance.map_index}"
        upstream = {name: xcoms[key] for name in task.upstream if (key := (run.number, name, NOT_MAPPED)) in xcoms}
        return {
            "type": "start",
            "fence": start.fence,
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "task_id": instance.task_id,
            "map_index": instance.map_index,
            "try_number": instance.try_number,
            "bundle": version.bundle,
            "file": version.file,
            "dags_dir": str(settings.dags),
            "log": f"{settings.logs}/{run.dag_id}/{run.run_id}/{folder}/{instance.try_number}.log",
            "env": self._environment | _environment(start),
            "secrets": self._secrets,
            "context": None if task.spawn else _context(run, start, version.spec, settings, upstream),
            "spawn": task.spawn,
            "kill_grace_s": settings.executor.kill_grace_s,
        }


def _environment(start: StartAttempt) -> dict[str, str]:
    """The environment of the contract. The idempotency key is one per try: a re-sent start has the same."""
    run, instance = start.run, start.instance
    one_try = f"{run.dag_id}/{run.run_id}/{instance.task_id}/{instance.map_index}/{instance.try_number}"
    return {
        "FLUX_DAG_ID": run.dag_id,
        "FLUX_TASK_ID": instance.task_id,
        "FLUX_RUN_ID": run.run_id,
        "FLUX_MAP_INDEX": str(instance.map_index),
        "FLUX_TRY_NUMBER": str(instance.try_number),
        "FLUX_LOGICAL_DATE": rfc3339(run.logical_date),
        "FLUX_DATA_INTERVAL_START": rfc3339(run.data_interval_start),
        "FLUX_DATA_INTERVAL_END": rfc3339(run.data_interval_end),
        "FLUX_IDEMPOTENCY_KEY": one_try,
        "FLUX_FENCE": str(start.fence),
    }


def _context(
    run: Run, start: StartAttempt, spec: DagSpec, settings: Settings, upstream: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    instance = start.instance
    return {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "run_type": run.run_type,
        "logical_date": rfc3339(run.logical_date),
        "data_interval_start": rfc3339(run.data_interval_start),
        "data_interval_end": rfc3339(run.data_interval_end),
        "queued_at": rfc3339(run.queued_at),
        "conf": run.conf,
        "params": spec.params | {name: value for name, value in run.conf.items() if name in spec.params},
        "task_id": instance.task_id,
        "map_index": instance.map_index,
        "try_number": instance.try_number,
        "max_tries": instance.max_tries,
        "upstream_xcoms": upstream,
        "home": str(settings.home),
        "socket": str(settings.socket),
        "fence": start.fence,
        "xcom_max_kb": settings.xcom_max_kb,
    }
