"""Groups of tasks: one name in front of many ids, and one end for edges."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fluxd.authoring import checks
from fluxd.authoring.current import building
from fluxd.authoring.node import DagNode
from fluxd.authoring.operator import check_place
from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG


class TaskGroup(DagNode):
    """`with TaskGroup("load"):` puts the tasks made in it into the group: task `a` becomes `load.a`.

    Edges to a group lead to its first tasks, edges from it come from its last ones. `default_args` add to those of
    the dag. Groups may stand in groups.
    """

    def __init__(
        self,
        group_id: str,
        *,
        prefix_group_id: bool = True,
        default_args: Mapping[str, Any] | None = None,
        dag: "DAG | None" = None,
        parent_group: "TaskGroup | None" = None,
        tooltip: str = "",
        **unknown: Any,
    ) -> None:
        what = f"TaskGroup {spoken(group_id)}"
        for name in unknown:
            raise checks.unknown_argument(name, ("prefix_group_id", "default_args", "parent_group", "tooltip"), what)
        check_place(dag, parent_group, "parent_group", what)
        stack = building.get()
        around = parent_group or (stack[-1] if stack and dag in (None, stack[-1].dag) else dag)
        if around is None:
            raise Invalid("FLX-1011", f"{what} belongs to no dag: make it inside `with DAG(...):`, or give it dag=.")
        self.dag: DAG = around.dag
        self.parent: TaskGroup | None = around if isinstance(around, TaskGroup) else None
        name = checks.identifier(group_id, "group_id")
        self.group_id = self.parent.child_id(name) if self.parent else name
        self.prefix_group_id = checks.boolean(prefix_group_id, f"prefix_group_id of {what}")
        self.tooltip = tooltip
        outer = self.parent.defaults if self.parent else self.dag.default_args
        self.default_args = checks.mapping(default_args, f"default_args of {what}")
        self.defaults: dict[str, Any] = {**outer, **self.default_args}
        self.task_ids: list[str] = []  # of the tasks in it and in its inner groups
        self.dag.add_group(self)

    def child_id(self, name: str) -> str:
        """The full id of a task or group in this group."""
        if self.prefix_group_id:
            return f"{self.group_id}.{name}"
        return self.parent.child_id(name) if self.parent else name

    @property
    def depth(self) -> int:
        return 1 + (self.parent.depth if self.parent else 0)

    def wired(self) -> "tuple[DAG | None, str]":
        return self.dag, self.group_id

    def __enter__(self) -> Self:
        building.set((*building.get(), self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        building.set(building.get()[:-1])

    def __repr__(self) -> str:
        return f"<TaskGroup {self.group_id}>"
