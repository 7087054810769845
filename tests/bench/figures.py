"""What a measurement is: its samples, what was to be reached, and how it is shown."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Figure:
    """One row of the table. `target` must be reached, `aim` would be good; `more` says whether more is better.

    `notes` are figures of interest beside it, such as what bounds it.
    """

    case: str
    what: str
    unit: str
    target: float | None = None
    aim: float | None = None
    more: bool = False
    samples: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def reached(self) -> str:
        """`aim`, `target`, `missed`, or nothing where there was nothing to reach."""
        for name, bound in (("aim", self.aim), ("target", self.target)):
            if bound is not None and (self.median >= bound if self.more else self.median <= bound):
                return name
        return "" if self.target is None else "missed"

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "what": self.what,
            "unit": self.unit,
            "target": self.target,
            "aim": self.aim,
            "better": "more" if self.more else "less",
            "reached": self.reached,
            "median": self.median,
            "min": min(self.samples),
            "max": max(self.samples),
            "samples": self.samples,
            "notes": self.notes,
        }


def short(value: float | None) -> str:
    """Three significant digits, and whole numbers from a hundred on."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
