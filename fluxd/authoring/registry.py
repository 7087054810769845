"""The dags that came to be while a file was imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fluxd.errors import Invalid

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG

_made: "list[DAG]" = []
_uncalled: dict[str, str] = {}  # @dag functions that nobody has called yet: name -> where


def made(dag: "DAG") -> None:
    _made.append(dag)


def declared(name: str, where: str) -> None:
    """A @dag function was written; it is a dag only once it is called."""
    _uncalled[name] = where


def called(name: str) -> None:
    _uncalled.pop(name, None)


def forget() -> None:
    """Forget the dags that were made so far."""
    _made.clear()
    _uncalled.clear()


def collect() -> "list[DAG]":
    """All dags made since the last call, in order, each checked; then the list is empty again.

    Raises Invalid FLX-1009 for two dags with one id, FLX-1016 where there is a @dag function but no dag.
    """
    dags, forgotten = list(_made), dict(_uncalled)
    forget()
    if not dags and forgotten:
        name, where = next(iter(forgotten.items()))
        raise Invalid("FLX-1016", f"The @dag function {name!r} ({where}) is never called: write {name}() after it.")
    seen: dict[str, str] = {}
    for dag in dags:
        if dag.dag_id in seen:
            raise Invalid(
                "FLX-1009",
                f"Dag {dag.dag_id!r} is defined twice, at {seen[dag.dag_id]} and at {dag.where}: "
                "give each dag of a file its own id.",
            )
        seen[dag.dag_id] = dag.where
        dag.check()
    return dags


@contextmanager
def apart() -> Iterator[None]:
    """Dags made in this block are not of the file that is being imported: it only imports the file that makes them."""
    dags, uncalled = list(_made), dict(_uncalled)
    try:
        yield
    finally:
        _made[:] = dags
        _uncalled.clear()
        _uncalled.update(uncalled)
