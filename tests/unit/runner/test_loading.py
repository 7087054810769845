"""What the runner has at hand before it forks anything."""

from fluxd.authoring import registry
from fluxd.runner import loading


def test_the_dags_of_the_rehearsal_are_nobodys() -> None:
    registry.forget()  # what other tests made
    loading.preload()
    assert registry.collect() == []
