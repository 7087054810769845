"""`python -m tests.sim --seeds N [--start S] [--replay SEED]`: many lives of the daemon, and what went wrong."""

import argparse
import sys
import time
import traceback
from collections import Counter
from datetime import date

from tests.sim.world import World


def seed_of_the_day(day: date) -> int:
    """The first of the seeds that are fresh on this day."""
    return day.toordinal() * 10_000


def live(seed: int, traced: bool = False) -> World:
    """One life. An error tells how to see it again."""
    world = World(seed, traced)
    try:
        world.live()
    except BaseException as error:
        error.add_note(f"replay with: python -m tests.sim --replay {seed}")
        raise
    return world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many lives")
    parser.add_argument("--start", type=int, help="the first seed (default: fresh ones of today)")
    parser.add_argument("--replay", type=int, help="one seed only, with the whole story of its failure")
    parser.add_argument("--first", action="store_true", help="stop at the first failure")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        world = live(arguments.replay, traced=True)
        print(f"seed {arguments.replay} is well: {dict(world.counts)} {dict(world.faults)} {world.digest.hexdigest()}")
        return 0
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    failed: list[int] = []
    start = seed_of_the_day(date.today()) if arguments.start is None else arguments.start
    print(f"{arguments.seeds} seeds from {start} on", flush=True)
    began, worked = time.perf_counter(), time.process_time()
    for seed in range(start, start + arguments.seeds):
        try:
            world = live(seed)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failed.append(seed)
            if len(failed) <= 5:
                traceback.print_exception(error)
            if arguments.first:
                break
        else:
            counts += world.counts
            faults += world.faults
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    hours = counts.pop("seconds", 0) / 3600
    lives = counts["lives"] + len(failed)
    print(f"{lives} seeds in {seconds:.1f} s, {cpu:.1f} s of a core ({lives / cpu:.0f} lives/s), {hours:,.0f} h")
    print("  " + ", ".join(f"{count:,} {name}" for name, count in counts.most_common()))
    print("  faults: " + ", ".join(f"{count:,} {name}" for name, count in faults.most_common()))
    if failed:
        print(f"{len(failed)} seeds FAILED: {failed[:20]}; see one with: python -m tests.sim --replay {failed[0]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
