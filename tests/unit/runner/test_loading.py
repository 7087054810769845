"""What the runner has at hand before it forks anything."""

import subprocess
import sys

from fluxd.authoring import registry
from fluxd.runner import loading

SPECIALISED = """
import dis
from fluxd import DAG
from fluxd.runner import loading
{before}
names = [one.opname for one in dis.get_instructions(DAG.__init__, adaptive=True)]
print(sum(name.startswith("LOAD_GLOBAL_") and not name.endswith("_ADAPTIVE") for name in names))
"""


def test_the_dags_of_the_rehearsal_are_nobodys() -> None:
    registry.forget()  # what other tests made
    loading.preload()
    assert registry.collect() == []


def test_the_interpreter_has_specialised_what_makes_a_dag() -> None:
    cold, warm = (
        subprocess.run(
            [sys.executable, "-c", SPECIALISED.format(before=before)], capture_output=True, text=True, check=True
        ).stdout.strip()
        for before in ("", "loading.preload()")
    )
    assert cold == "0" != warm
