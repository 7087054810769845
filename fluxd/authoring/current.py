"""What is being written and what is being run right now, in this thread of control.

`building` is the stack of the dags and groups whose `with` block we are in; `running` is the context of the task that
runs in this process.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fluxd.errors import Refused

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG
    from fluxd.authoring.group import TaskGroup

building: "ContextVar[tuple[DAG | TaskGroup, ...]]" = ContextVar("building", default=())
running: ContextVar[dict[str, Any] | None] = ContextVar("running", default=None)


def get_current_context() -> dict[str, Any]:
    """The context of the task that is running. Raises Refused FLX-3012 where none is."""
    context = running.get()
    if context is None:
        raise Refused("FLX-3012", "get_current_context() works only while a task is running: call it inside the task.")
    return context
