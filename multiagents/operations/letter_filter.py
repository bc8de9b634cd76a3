"""Which dead letters does a list, or a decision on many, mean?  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from multiagents.core.states import Kind
from multiagents.operations.saga_filter import has_text
from multiagents.saga.state import AnyWork


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are meant; None: any."""

    workflow: str | None = None
    step: str | None = None
    kind: Kind | None = None
    until_ms: int | None = None
    """Parked by then, Unix ms."""
    error: str | None = None
    """A part of ``Type: message``, in any case."""

    def fits(self, kind: Kind, step: str, workflow: str) -> bool:
        """Whether a letter is meant, its age apart."""
        wanted = ((self.kind, kind), (self.step, step), (self.workflow, workflow))
        return all(asked is None or asked == found for asked, found in wanted)

    def fits_work(self, work: AnyWork, since_ms: int) -> bool:
        """Whether a letter is meant, by its error and since when it is parked."""
        if self.until_ms is not None and since_ms > self.until_ms:
            return False
        if self.error is None:
            return True
        return work.error is not None and has_text(work.error.to_dict(), self.error)
