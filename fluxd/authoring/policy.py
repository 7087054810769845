"""What a task says about how it is scheduled: the same for every operator, so operators know nothing of it."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from fluxd.authoring import checks
from fluxd.authoring.safely import spoken
from fluxd.core.rules import RULES
from fluxd.core.spec import check_executor

if TYPE_CHECKING:
    from fluxd.authoring.dag import DAG
    from fluxd.authoring.group import TaskGroup

Duration = dt.timedelta | float | str


class TaskArguments(TypedDict, total=False):
    """The arguments that every operator takes besides its own (see `Policy` for what they mean)."""

    task_id: str
    dag: "DAG | None"
    task_group: "TaskGroup | None"
    default_args: Mapping[str, Any] | None
    trigger_rule: str
    retries: int
    retry_delay: Duration
    retry_exponential_backoff: bool
    max_retry_delay: Duration | None
    execution_timeout: Duration | None
    pool: str | None
    pool_slots: int
    priority_weight: int
    queue: str | None
    executor: str | None
    depends_on_past: bool
    owner: str | None
    doc_md: str | None
    email: str | Sequence[str] | None
    email_on_failure: bool
    email_on_retry: bool


TASK_ARGUMENTS = frozenset(TaskArguments.__annotations__)


@dataclass(frozen=True)
class Policy:
    """How the scheduler treats a task; durations in seconds."""

    trigger_rule: str = "all_success"
    retries: int = 0
    retry_delay: float = 300.0
    retry_exponential_backoff: bool = False
    max_retry_delay: float | None = None
    execution_timeout: float | None = None
    pool: str = "default_pool"
    pool_slots: int = 1
    priority_weight: int = 1
    queue: str = "default"
    executor: str | None = None
    depends_on_past: bool = False
    owner: str | None = None
    doc_md: str | None = None
    email: tuple[str, ...] = ()
    email_on_failure: bool = True
    email_on_retry: bool = False


def _check(name: str, value: Any, what: str) -> Any:
    match name:
        case "trigger_rule":
            return checks.one_of(value, RULES, what)
        case "retries":
            return checks.whole(value, what)
        case "pool_slots":
            return checks.whole(value, what, least=1)
        case "priority_weight":
            return checks.whole(value, what, least=-(2**31))
        case "retry_delay" | "max_retry_delay":
            return checks.seconds(value, what)
        case "execution_timeout":
            return checks.seconds(value, what, positive=True)
        case "retry_exponential_backoff" | "depends_on_past" | "email_on_failure" | "email_on_retry":
            return checks.boolean(value, what)
        case "executor":
            return check_executor(value if isinstance(value, str) else spoken(value), what)
        case "email":
            return checks.texts(value, what)
        case "pool" | "queue":
            return checks.filled(value, what)
        case _:
            return checks.text(value, what)


def make_policy(given: Mapping[str, Any], task: str) -> Policy:
    """The policy of a task from its arguments; an argument that is None counts as not given."""
    values = {
        name: _check(name, given[name], task if name == "executor" else f"{name} of {task}")
        for name in Policy.__dataclass_fields__
        if given.get(name) is not None
    }
    return Policy(**values)
