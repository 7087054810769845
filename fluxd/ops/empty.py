"""A task that does nothing: a place for edges to meet."""

from typing import Any, ClassVar

from fluxd.authoring.operator import BaseOperator


class EmptyOperator(BaseOperator):
    """Nothing runs: it is done as soon as it is due."""

    kind: ClassVar[str] = "empty"

    def execute(self, context: dict[str, Any]) -> None:
        """Nothing."""
