"""(f): from the command to `ready:`, with the example dags; the first time (Postgres is made) and again."""

from tests.bench.figures import Figure
from tests.fluxd_process import ROOT, Daemon


def measure(repeat: int) -> list[Figure]:
    first = Figure("f", "start to ready, first time", "s")
    again = Figure("f", "start to ready, again", "s", target=3.0, aim=1.0)
    killed = Figure("f", "start to ready, after kill -9 of fluxd", "s")
    for _ in range(repeat):
        daemon = Daemon(dags=ROOT / "etc" / "dags")
        try:
            first.samples.append(daemon.start())
            daemon.interrupt()  # as Ctrl-C does: runner and Postgres end too
            again.samples.append(daemon.start())
            daemon.kill()
            killed.samples.append(daemon.start())
        finally:
            daemon.remove()
    return [first, again, killed]
