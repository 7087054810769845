"""The events of an inbox, cut into turns."""

from collections.abc import Iterable

from fluxd.core.events import ClearTasks, Event, MarkTasks, TriggerRun

# One turn takes no more events than this.
BATCH_MAX = 500


def batches(events: Iterable[Event]) -> list[list[Event]]:
    """The events in order, in slices; one that may need to know of finished runs begins a batch of its own."""
    found: list[list[Event]] = [[]]
    for event in events:
        full = len(found[-1]) >= BATCH_MAX
        if full or (isinstance(event, ClearTasks | MarkTasks | TriggerRun) and found[-1]):
            found.append([])
        found[-1].append(event)
    return found
