"""Wiring: what may stand on either side of `>>`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG


class DagNode:
    """Something that edges lead to and from: a task, a group of tasks, the result of a task."""

    def wired(self) -> "tuple[DAG | None, str]":
        """The dag and the id that edges of this node have."""
        raise NotImplementedError

    def set_downstream(self, other: Any) -> None:
        """`other` (a node or a list of them) comes after this."""
        connect(self, other)

    def set_upstream(self, other: Any) -> None:
        """`other` (a node or a list of them) comes before this."""
        connect(other, self)

    def __rshift__(self, other: Any) -> Any:
        connect(self, other)
        return other

    def __lshift__(self, other: Any) -> Any:
        connect(other, self)
        return other

    def __rrshift__(self, other: Any) -> "DagNode":
        connect(other, self)
        return self

    def __rlshift__(self, other: Any) -> "DagNode":
        connect(self, other)
        return self


def flat(nodes: Any) -> list[DagNode]:
    """The nodes of a node, or of lists of them however nested. Raises Invalid FLX-1014 on anything else."""
    if isinstance(nodes, DagNode):
        return [nodes]
    if isinstance(nodes, list | tuple | set | frozenset):
        return [node for inner in nodes for node in flat(inner)]
    hint = ": call it to make its task" if callable(nodes) else ""
    raise Invalid("FLX-1014", f"Only tasks and groups can be wired with >>, not {spoken(nodes)}{hint}.")


def connect(before: Any, after: Any) -> None:
    """Each of `before` comes before each of `after`."""
    targets = flat(after)
    for source in flat(before):
        dag, source_id = source.wired()
        for target in targets:
            other, target_id = target.wired()
            if dag is None or other is None:
                homeless = source_id if dag is None else target_id
                raise Invalid(
                    "FLX-1011",
                    f"Task {homeless!r} belongs to no dag: make it inside `with DAG(...):`, or give it dag=.",
                )
            if dag is not other:
                raise Invalid(
                    "FLX-1013",
                    f"{source_id!r} of dag {dag.dag_id!r} cannot be wired to {target_id!r} of dag {other.dag_id!r}: "
                    "edges stay inside one dag.",
                )
            dag.add_edge(source_id, target_id)


def chain(*nodes: Any) -> None:
    """`chain(a, [b, c], [d, e], f)` is a >> b >> d >> f and a >> c >> e >> f: lists side by side pair up."""
    for before, after in pairwise(nodes):
        if isinstance(before, Sequence) and isinstance(after, Sequence):
            if len(before) != len(after):
                raise Invalid(
                    "FLX-1014",
                    f"chain() pairs up lists that stand side by side, but they have {len(before)} and {len(after)} "
                    "tasks: make them equal, or use cross_downstream().",
                )
            for one, other in zip(before, after, strict=True):
                connect(one, other)
        else:
            connect(before, after)


def cross_downstream(from_tasks: Any, to_tasks: Any) -> None:
    """Each of `from_tasks` comes before each of `to_tasks`."""
    connect(from_tasks, to_tasks)
