"""`python -m tests.faults --kills 200 --hangs 30 [--seed N] [--hang-seconds 60]`: real kills and hangs under load."""

import argparse
import sys
import time

from tests.faults.campaign import campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--hangs", type=int, default=30)
    parser.add_argument("--hang-seconds", type=float, default=60.0)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds of work before each fault")
    parser.add_argument("--tasks-per-second", type=float, default=9.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    result = campaign(
        seed=given.seed,
        kill_count=given.kills,
        hang_count=given.hangs,
        hang_s=given.hang_seconds,
        pause_s=given.pause,
        tasks_per_s=given.tasks_per_second,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(result)
    return 0 if result.well else 1


if __name__ == "__main__":
    sys.exit(main())
