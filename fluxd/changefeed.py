"""What a saved turn changed, for those who watch: names and states.

A row of a turn names its run by number; people know runs by dag and id. The feed remembers which is which.
"""

from collections.abc import Iterable
from typing import Any

from fluxd.core.commands import Saves
from fluxd.core.model import Run
from fluxd.core.states import RUN_FINISHED

ENDED_NAMES_KEPT = 4096


class ChangeFeed:
    """The names of live runs, and of the last ones that ended: tasks of those may still be marked."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, str]] = {}  # run number -> (dag_id, run_id)
        self._ended_names: dict[int, tuple[str, str]] = {}

    def recall(self, runs: Iterable[Run]) -> None:
        """These live, as the database says."""
        for run in runs:
            self._names[run.number] = (run.dag_id, run.run_id)

    def recall_ended(self, run_number: int, dag_id: str, run_id: str) -> None:
        """This one has ended, and something is about to be done to it."""
        self._ended_names[run_number] = (dag_id, run_id)

    def changes(self, saves: Saves) -> dict[str, list[Any]]:
        """{"runs": [[dag_id, run_id, state]], "tasks": [[dag_id, run_id, task_id, map_index, state, try_number]],
        "dags": [dag_id]}."""
        self.recall(saves.runs)
        tasks = [
            [*self._name(one.run_number), one.task_id, one.map_index, one.state, one.try_number]
            for one in saves.instances
        ]
        for run in saves.runs:
            if run.state in RUN_FINISHED:
                self._ended_names[run.number] = self._names.pop(run.number)
        while len(self._ended_names) > ENDED_NAMES_KEPT:
            self._ended_names.pop(next(iter(self._ended_names)))
        return {
            "runs": [[run.dag_id, run.run_id, run.state] for run in saves.runs],
            "tasks": tasks,
            "dags": [cursor.dag_id for cursor in saves.cursors],
        }

    def _name(self, run_number: int) -> tuple[str, str]:
        return self._names.get(run_number) or self._ended_names.get(run_number, ("", ""))
