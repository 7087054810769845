"""A whole campaign: load, faults one after the other, calm, judgement."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.faults import Fault, Monkey, hangs, kills, table
from tests.faults.judge import Verdicts, judge
from tests.faults.load import Load, unfinished
from tests.faults.targets import Targets
from tests.faults.workload import Journal, prepare
from tests.fluxd_process import Daemon, until

CALM_S = 300.0


@dataclass
class Result:
    """What a campaign found."""

    verdicts: Verdicts
    gone: list[str]
    slow: list[str]
    refused: list[str]
    kills: list[Fault]
    hangs: list[Fault]
    runs: int
    tasks: int
    seconds: float

    @property
    def well(self) -> bool:
        return not (self.verdicts or self.gone or self.slow or self.refused)

    def __str__(self) -> str:
        parts = [
            f"{self.runs} runs acknowledged, {self.tasks} processes of tasks in {self.seconds:.0f} s "
            f"({self.tasks / self.seconds:.1f}/s)",
            table("kill -9 of", self.kills),
            table("SIGSTOP of", self.hangs),
            str(self.verdicts),
            f"fluxd gone {len(self.gone)}: {'; '.join(self.gone[:5])}",
            f"no work within two minutes {len(self.slow)}: {'; '.join(self.slow[:5])}",
            f"refused {len(self.refused)}: {'; '.join(self.refused[:5])}",
        ]
        return "\n".join(parts)


def campaign(
    *,
    seed: int,
    kill_count: int,
    hang_count: int,
    hang_s: float,
    pause_s: float = 1.0,
    tasks_per_s: float = 9.0,
    settings: dict[str, str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Result:
    """That many kills, and hangs of `hang_s` seconds, mixed by the seed, each after `pause_s` of work."""
    daemon = Daemon(settings=settings)
    folder = daemon.folder
    prepare(folder, daemon.dags)
    with daemon:
        daemon.until_known("stubborn")
        targets, journal = Targets(daemon), Journal(folder / "journal")
        load = Load(daemon, folder, tasks_per_s, seed)
        monkey = Monkey(daemon, targets, journal, seed)
        killing, hanging = kills(targets), hangs(targets)
        order = ["kill"] * kill_count + ["hang"] * hang_count
        random.Random(seed).shuffle(order)
        begun = time.monotonic()
        load.start()
        try:
            for number, kind in enumerate(order, 1):
                time.sleep(pause_s)
                fault = monkey.choose(killing if kind == "kill" else hanging)
                tell(f"{number}/{len(order)} {kind} {fault.name}")
                monkey.kill(fault) if kind == "kill" else monkey.hang(fault, hang_s)
        finally:
            load.stop()
        seconds = time.monotonic() - begun
        until(lambda: not unfinished(daemon), "all runs have ended", CALM_S)
        verdicts = judge(daemon, journal, set(load.acknowledged), monkey.killed)
        begins = sum(entry.word == "S" for entry in journal.entries)
    return Result(
        verdicts, monkey.gone, monkey.slow, load.refused, killing, hanging, len(load.acknowledged), begins, seconds
    )
