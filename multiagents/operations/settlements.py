"""Which dead letters of a saga has an operator settled, and why?

Deciding over its log again shows them: the action after which a letter is no longer parked has
settled it.  The last action on each letter counts.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from multiagents.core.clock import iso
from multiagents.core.entries import Entry, Requested
from multiagents.core.states import Action, Kind
from multiagents.core.texts import some_of
from multiagents.engine.saga_reader import blank_saga
from multiagents.operations.projection import NAMED
from multiagents.saga.allowed import SETTLING
from multiagents.saga.dead_letters import dead_letters_of
from multiagents.saga.decide import fold
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow

DONE = {Action.RETRY: "retried", Action.SKIP: "skipped", Action.RESOLVE: "resolved"}
"""The participle of each action on dead letters."""
_OF_THE_SAGA = {
    Action.RETRY: "the refused callbacks of its end",
    Action.RESOLVE: "its attention",
}
"""What these actions settle in a saga without dead letters."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """One dead letter, and the action that settled it."""

    asked: Requested
    step: str = ""
    """Empty: the attention of the saga, and no step."""
    kind: Kind = Kind.RUN

    @property
    def what(self) -> str:
        """The settled thing: ``undo of 'charge'``."""
        if not self.step:
            return _OF_THE_SAGA[self.asked.action]
        return f"{'step' if self.kind is Kind.RUN else 'undo of'} {self.step!r}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        called = "step" if self.kind is Kind.RUN else "undo"
        return {
            "step": self.step or None,
            "kind": called if self.step else None,
            "command": self.asked.action.value,
            "by": self.asked.by or None,
            "why": self.asked.reason or None,
            "at": iso(self.asked.at_ms),
        }


def told_of(settled: Sequence[Settlement]) -> list[tuple[str, Requested]]:
    """For each action a text, such as ``undo of 'charge' resolved by ada``, and the action itself.

    The last one first.
    """
    found: dict[str, list[Settlement]] = {}
    for each in settled:
        found.setdefault(each.asked.request, []).append(each)
    return [_told(group) for group in reversed(found.values())]


def _told(group: Sequence[Settlement]) -> tuple[str, Requested]:
    asked = group[0].asked
    named = some_of((each.what for each in group), NAMED)
    who = f" by {asked.by}" if asked.by else ""
    return f"{named} {DONE[asked.action]}{who}", asked


def settlements(
    saga_id: str, workflow: Workflow, entries: Sequence[Entry], data: dict[str, str]
) -> list[Settlement]:
    """The last settlement of each dead letter of a saga, by time.

    ``entries``: its log; ``data``: its data hash, which conditions read.
    """
    found: dict[tuple[str, Kind], Settlement] = {}
    saga = blank_saga(workflow, saga_id, entries[0].at_ms if entries else 0, data)
    decided = 0
    for place, entry in enumerate(entries):
        if not (isinstance(entry, Requested) and entry.action in SETTLING):
            continue
        before = fold(workflow, saga, entries[decided:place]).saga
        saga, decided = fold(workflow, before, (entry,)).saga, place + 1
        for step, kind in _gone(before, saga):
            found.pop((step, kind), None)
            found[step, kind] = Settlement(entry, step, kind)
    return list(found.values())


def _gone(before: Saga, saga: Saga) -> Iterator[tuple[str, Kind]]:
    left = set(dead_letters_of(saga))
    settled = [letter for letter in dead_letters_of(before) if letter not in left]
    yield from settled
    if not settled and len(saga.attention) < len(before.attention):
        yield "", Kind.RUN
