"""Which dead letters does a list, or an action on many, ask for?  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from multiagents.core.states import Kind
from multiagents.operations.saga_filter import has_text
from multiagents.saga.state import AnyWork


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """The filters for dead letters; None: no filter."""

    workflow: str | None = None
    step: str | None = None
    kind: Kind | None = None
    until_ms: int | None = None
    """The latest time of parking, Unix ms."""
    error: str | None = None
    """A part of ``Type: message``, in any case."""

    def fits(self, kind: Kind, step: str, workflow: str) -> bool:
        """Whether a letter fits, apart from its age and error."""
        wanted = ((self.kind, kind), (self.step, step), (self.workflow, workflow))
        return all(asked is None or asked == found for asked, found in wanted)

    def fits_work(self, work: AnyWork, since_ms: int) -> bool:
        """Whether a letter fits by its error and by the time at which it was parked."""
        if self.until_ms is not None and since_ms > self.until_ms:
            return False
        if self.error is None:
            return True
        return work.error is not None and has_text(work.error.to_dict(), self.error)
