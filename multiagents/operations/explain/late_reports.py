"""Which attempts that were given up for lost have succeeded, or ended something, after all?

A worker that was cut off, or a plain task that outlived its time-out, may report when its step
waits for a person already.  That moves nothing (a person may be at it), but whoever decides has to
know it.  Found in the log.  Pure.
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
    """An attempt's report that it succeeded, which came after it had been given up."""

    attempt: int
    at_ms: int
    left: str = ""
    """What it had left at work and has ended since: no success of its own is known."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        told = {"attempt": self.attempt, "at": iso(self.at_ms)}
        return {**told, "left": self.left} if self.left else told


LateSuccesses = dict[tuple[Kind, str], list[LateSuccess]]
"""By kind and step, oldest first."""


def late_successes(entries: Iterable[Entry]) -> LateSuccesses:
    """The late successes of a saga's log.

    By the nonce of the claim: one that nobody knows is no success of an attempt of ours (E5).
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
