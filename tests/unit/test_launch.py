"""Start messages: the environment of the contract, and what is handed over of the direct upstreams."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fluxd import config
from fluxd.core.commands import Saves, StartAttempt, XCom
from fluxd.core.model import Instance, InstanceKey, Run
from fluxd.core.spec import DagSpec
from fluxd.core.states import RunState
from fluxd.launch import Launcher, Version, XComs
from tests.unit.core.dialogue import NOON, dag, task

SPEC = dag(task("a"), task("b"), task("c", "a", "b"), dag_id="sales", params={"region": "eu", "size": 1})
RUN = Run(
    *(7, "sales", "manual__1", "manual", RunState.RUNNING, 3, NOON, NOON, NOON + timedelta(days=1), None, NOON),
    conf={"region": "us", "extra": 1},
)


class Stored:
    """What is stored, and what was asked for."""

    def __init__(self, spec: DagSpec = SPEC) -> None:
        self.spec = spec
        self.versions: list[int] = []
        self.asked: list[list[InstanceKey]] = []

    async def version(self, version_id: int) -> Version:
        self.versions.append(version_id)
        return Version(self.spec, "sales.py", "b" * 16)

    async def xcoms(self, instances: list[InstanceKey]) -> XComs:
        self.asked.append(instances)
        return {key: {"return_value": key[1].upper()} for key in instances}


def launcher(home: Path, stored: Stored) -> Launcher:
    settings = config.load(home, environment={})
    return Launcher(settings, version=stored.version, xcoms=stored.xcoms, connections={"embedded": "postgresql:///x"})


def start(task_id: str = "c", map_index: int = -1) -> StartAttempt:
    return StartAttempt(41, RUN, Instance(7, task_id, map_index, try_number=2, max_tries=3, fence=41), 3)


async def message(made: Launcher, command: StartAttempt) -> dict[str, Any]:
    (one,) = await made.messages([command])
    return one


@pytest.mark.anyio
async def test_the_environment_is_that_of_the_contract(tmp_path: Path) -> None:
    sent = await message(launcher(tmp_path, Stored()), start())
    assert sent["secrets"] == {"FLUX_CONN_EMBEDDED": "postgresql:///x"}
    assert sent["env"] == {
        "FLUX_HOME": str(tmp_path),
        "FLUX_DAG_ID": "sales",
        "FLUX_TASK_ID": "c",
        "FLUX_RUN_ID": "manual__1",
        "FLUX_MAP_INDEX": "-1",
        "FLUX_TRY_NUMBER": "2",
        "FLUX_LOGICAL_DATE": "2026-01-10T12:00:00Z",
        "FLUX_DATA_INTERVAL_START": "2026-01-10T12:00:00Z",
        "FLUX_DATA_INTERVAL_END": "2026-01-11T12:00:00Z",
        "FLUX_IDEMPOTENCY_KEY": "sales/manual__1/c/-1/2",
        "FLUX_FENCE": "41",
    }
    assert sent["log"] == f"{tmp_path}/logs/sales/manual__1/c/2.log"
    assert sent["context"]["params"] == {"region": "us", "size": 1}


@pytest.mark.anyio
async def test_a_mapped_task_has_a_log_folder_of_its_own(tmp_path: Path) -> None:
    sent = await message(launcher(tmp_path, Stored()), start(map_index=4))
    assert sent["log"].endswith("/c.4/2.log")


@pytest.mark.anyio
async def test_only_upstreams_that_handed_something_on_are_asked_for(tmp_path: Path) -> None:
    stored = Stored()
    made = launcher(tmp_path, stored)
    assert (await message(made, start()))["context"]["upstream_xcoms"] == {}
    assert stored.asked == []
    made.note(Saves(xcoms=[XCom(7, "a", -1, "return_value", 1), XCom(7, "c", -1, "k", 1), XCom(8, "b", -1, "k", 1)]))
    assert (await message(made, start()))["context"]["upstream_xcoms"] == {"a": {"return_value": "A"}}
    assert stored.asked == [[(7, "a", -1)]]
    assert stored.versions == [3]


@pytest.mark.anyio
async def test_what_was_dropped_or_has_ended_is_not_asked_for(tmp_path: Path) -> None:
    stored = Stored()
    made = launcher(tmp_path, stored)
    made.recall([(7, "a", -1), (7, "b", -1), (7, "b", 3)])
    made.note(Saves(xcoms_dropped=[(7, "a", -1), (7, "b", 3)]))  # another instance of b keeps its own
    assert (await message(made, start()))["context"]["upstream_xcoms"] == {"b": {"return_value": "B"}}
    ended = RUN.snapshot()
    ended.state, ended.ended_at = RunState.SUCCESS, datetime.now(UTC)
    made.note(Saves(runs=[ended]))
    assert (await message(made, start()))["context"]["upstream_xcoms"] == {}
