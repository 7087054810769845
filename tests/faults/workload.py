"""The dags that run while things are killed, and the journal that their tasks keep: Flux does not know of it.

Each process of a task writes a line when it begins and one as the last thing it does. It also holds a lock of its own
for each task instance, as long as it or a child of it lives: one that cannot have the lock writes OVERLAP.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

# dag id -> (state in which each of its runs must end, share of the load)
EXPECTED = {"chain": "success", "fan": "success", "slow": "success", "waits": "success", "stubborn": "failed"}
TASKS = {"chain": 4, "fan": 6, "slow": 2, "waits": 2, "stubborn": 2}

DAGS = '''
import fcntl, os, time
from fluxd import DAG, task
from fluxd.ops import BashOperator
from fluxd.sensors import FileSensor

HERE = "{folder}"
NAMES = ("FLUX_DAG_ID", "FLUX_RUN_ID", "FLUX_TASK_ID", "FLUX_TRY_NUMBER", "FLUX_FENCE")

def note(word):
    at = time.clock_gettime(time.CLOCK_BOOTTIME)
    line = " ".join([word, *(os.environ[name] for name in NAMES), str(os.getpid()), f"{{at:.2f}}"]) + "\\n"
    fd = os.open(HERE + "/journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)

def work(seconds):
    """Begin, hold the instance, be busy for a while, end. Returns the fence."""
    instance = ".".join(os.environ[name] for name in NAMES[:3])
    lock = os.open(f"{{HERE}}/locks/{{instance}}", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("OVERLAP")
    note("S")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(0.05, seconds))
    note("E")
    return int(os.environ["FLUX_FENCE"])

LINE = 'read up _ < /proc/uptime; echo "$1 $FLUX_DAG_ID $FLUX_RUN_ID $FLUX_TASK_ID $FLUX_TRY_NUMBER $FLUX_FENCE $$ $up"'
BASH = f"""
note() {{{{ {{LINE}} >> {{HERE}}/journal; }}}}
exec 9>>"{{HERE}}/locks/$FLUX_DAG_ID.$FLUX_RUN_ID.$FLUX_TASK_ID"
flock -n 9 || note OVERLAP
note S
sleep %s
echo "$FLUX_FENCE"
note E
"""
POLICY = {{"retries": 8, "retry_delay": 0.2}}

with DAG("chain", schedule=None, default_args=POLICY, max_active_runs=64, max_active_tasks=64):
    @task
    def second():
        return work(0.05)

    @task
    def fourth():
        return work(0.1)

    first = BashOperator(task_id="first", bash_command=BASH % 0.1)
    third = BashOperator(task_id="third", bash_command=BASH % 0.1 + "# {{{{ ds }}}}")
    first >> second() >> third >> fourth()

with DAG("fan", schedule=None, default_args=POLICY, max_active_runs=64, max_active_tasks=64):
    @task
    def open_it():
        return work(0.01)

    @task
    def join():
        return work(0.01)

    @task
    def part():
        return work(0.3)

    open_it() >> [part.override(task_id=f"part{{n}}")() for n in range(4)] >> join()

with DAG("slow", schedule=None, default_args=POLICY, max_active_runs=64, max_active_tasks=64):
    @task
    def python():
        return work(6)

    BashOperator(task_id="bash", bash_command=BASH % 6)
    python()

with DAG("waits", schedule=None, default_args=POLICY, max_active_runs=64, max_active_tasks=64):
    @task
    def after():
        return work(0.05)

    FileSensor(task_id="file", path=HERE + "/in/{{{{ run_id }}}}", poke_interval=0.5, timeout=1200) >> after()

with DAG("stubborn", schedule=None, max_active_runs=64, max_active_tasks=64):
    @task(retries=1, retry_delay=0.2)
    def fails():
        work(0.05)
        raise ValueError("as always")

    @task
    def never():
        return work(0.05)

    fails() >> never()
'''


@dataclass(frozen=True)
class Entry:
    """One line of the journal. `at`: seconds since boot."""

    word: str
    dag_id: str
    run_id: str
    task_id: str
    try_number: int
    fence: int
    pid: int
    at: float


@dataclass
class Journal:
    """What the tasks themselves say: by (dag, run, task) in the order of writing."""

    path: Path
    entries: list[Entry] = field(default_factory=list)

    def read(self) -> "Journal":
        self.entries = []
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                word, dag_id, run_id, task_id, try_number, fence, pid, at = line.split(" ")
                one = Entry(word, dag_id, run_id, task_id, int(try_number), int(fence), int(pid), float(at))
                self.entries.append(one)
        return self

    def by_instance(self) -> dict[tuple[str, str, str], list[Entry]]:
        found: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
        for entry in self.entries:
            found[entry.dag_id, entry.run_id, entry.task_id].append(entry)
        return found

    def begun_after(self, at: float) -> float | None:
        """When the first process after this moment began."""
        return min((entry.at for entry in self.entries if entry.word == "S" and entry.at > at), default=None)


def prepare(folder: Path, dags: Path) -> None:
    """Make the places of the journal, and put the dags into their folder."""
    for name in ("locks", "in"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    new = dags / "load.new"
    new.write_text(DAGS.format(folder=folder))
    new.replace(dags / "load.py")
