"""Which attempts that were given up have reported a success afterwards?

A worker that was cut off, or a plain task that outlived its timeout, may report when its step is
already parked.  The report moves nothing, because an operator may be at work on the step; but the
operator needs it for the decision.  The log has these reports.  Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import iso
from multiagents.core.entries import Entry, Failed, Lost, Succeeded
from multiagents.core.states import Kind


@dataclass(frozen=True, slots=True)
class LateSuccess:
    """The report of a success by an attempt that had been given up."""

    attempt: int
    at_ms: int
    left: str = ""
    """The work that it had left running and that has ended since; its own success is unknown."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        told = {"attempt": self.attempt, "at": iso(self.at_ms)}
        return {**told, "left": self.left} if self.left else told


LateSuccesses = dict[tuple[Kind, str], list[LateSuccess]]
"""By kind and step, oldest first."""


def late_successes(entries: Iterable[Entry]) -> LateSuccesses:
    """The late successes of a saga's log.

    The nonce of the claim identifies an attempt: an unknown nonce is no attempt of the saga (E5).
    """
    given_up: set[tuple[AttemptRef, str]] = set()
    found: LateSuccesses = defaultdict(list)
    for entry in entries:
        if not isinstance(entry, Lost | Failed | Succeeded):
            continue
        claim = (entry.ref, entry.nonce)
        if isinstance(entry, Failed) and entry.part and claim in given_up:
            late = LateSuccess(entry.attempt, entry.at_ms, entry.error.message)
            found[entry.kind, entry.step].append(late)
        elif not isinstance(entry, Succeeded):
            given_up.add(claim)
        elif claim in given_up:
            given_up.discard(claim)
            found[entry.kind, entry.step].append(LateSuccess(entry.attempt, entry.at_ms))
    return dict(found)
