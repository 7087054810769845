"""What must be true when all has come to its end: held against the journal, which Flux does not know."""

from tests.faults.workload import EXPECTED, Entry, Journal
from tests.fluxd_process import Daemon


class Verdicts:
    """What was found wrong, by kind."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.double: list[str] = []
        self.wrong: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.lost or self.double or self.wrong)

    def __str__(self) -> str:
        kinds = {"lost": self.lost, "double": self.double, "wrong": self.wrong}
        return "\n".join(f"{kind} {len(found)}: {'; '.join(found[:8])}" for kind, found in kinds.items())


def judge(daemon: Daemon, journal: Journal, acknowledged: set[tuple[str, str]], killed: set[int]) -> Verdicts:
    """`acknowledged`: runs that a caller was told of. `killed`: pids of attempts that a fault ended."""
    verdicts = Verdicts()
    lines = journal.read().by_instance()
    for entry in journal.entries:
        if entry.word == "OVERLAP":
            verdicts.double.append(f"two at once: {entry}")
    for dag_id, state in EXPECTED.items():
        known = {run["run_id"]: run["state"] for run in daemon.all(f"/dags/{dag_id}/runs")}
        for of_dag, run_id in sorted(acknowledged):
            if of_dag == dag_id and run_id not in known:
                verdicts.lost.append(f"{dag_id} {run_id} was acknowledged and is not there")
        for run_id, ended in known.items():
            if ended != state:
                verdicts.wrong.append(f"{dag_id} {run_id} ended {ended}, not {state}")
            _judge_run(daemon, dag_id, run_id, lines, killed, verdicts)
    return verdicts


def _judge_run(
    daemon: Daemon,
    dag_id: str,
    run_id: str,
    lines: dict[tuple[str, str, str], list[Entry]],
    killed: set[int],
    verdicts: Verdicts,
) -> None:
    for task in daemon.run(dag_id, run_id)["tasks"]:
        what = f"{dag_id} {run_id} {task['task_id']} ({task['state']}, try {task['try_number']})"
        entries = lines.get((dag_id, run_id, task["task_id"]), [])
        ends = [entry for entry in entries if entry.word == "E"]
        begins = [entry for entry in entries if entry.word == "S"]
        if task["state"] == "success" and task["task_id"] != "file" and not ends:
            verdicts.lost.append(f"{what} is said to have ended well, and no process of it came to its end")
        if dag_id != "stubborn":
            again = [end for end in ends[:-1] if end.pid not in killed]
            if again:
                verdicts.double.append(f"{what} ran to its end and was run again: {again}")
        elif task["task_id"] == "fails" and len(begins) > 2 + sum(begin.pid in killed for begin in begins):
            verdicts.double.append(f"{what} has two tries and began {len(begins)} times")
        elif task["task_id"] == "never" and (begins or task["state"] != "upstream_failed"):
            verdicts.wrong.append(f"{what} must not have run")
        fences = [begin.fence for begin in begins]
        if len(set(fences)) != len(fences) or fences != sorted(fences):
            verdicts.double.append(f"{what}: an order was carried out twice, or an older one later: {fences}")
