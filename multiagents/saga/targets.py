"""Which targets get a saga's outcome besides its result, and which of them are left?

A start's canvas has targets: each link, each errback, the next task of its chain, its part of a
chord.  Each gets the outcome once, separately.  A target that Celery refuses to send is parked for
an operator: a note in the saga's attention names it.  While the note stands, nothing sends the
target.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from multiagents.core.entries import Failure
from multiagents.saga.state import Saga

_REFUSED = " cannot be told: "
"""Between a target and the reason, in a note of a saga's attention."""
_OF = " of "
_MOST = 300
"""Characters of a reason in a note; the saga's history has the whole reason."""

CHORD, CHAIN, LINK, ERRBACK = "chord", "chain", "link", "errback"


@dataclass(frozen=True, slots=True)
class Target:
    """One receiver of an outcome.  ``name``: unique in its canvas."""

    name: str
    kind: str
    signature: Mapping[str, Any] = field(default_factory=dict)


def targets_of(canvas: Mapping[str, Any], *, completed: bool) -> list[Target]:
    """The targets of a canvas, in the order of delivery."""
    found = [Target(CHORD, CHORD)] if canvas.get("chord") else []
    if not completed:
        return [*found, *errbacks_of(canvas)]
    found += _numbered(LINK, canvas.get("callbacks"))
    chain = canvas.get("chain")
    return [*found, Target(_named(CHAIN, chain[-1]), CHAIN, chain[-1])] if chain else found


def errbacks_of(canvas: Mapping[str, Any]) -> list[Target]:
    """The targets of a failure."""
    return _numbered(ERRBACK, canvas.get("errbacks"))


def _numbered(kind: str, signatures: Iterable[Mapping[str, Any]] | None) -> list[Target]:
    found = enumerate(signatures or (), start=1)
    return [Target(_named(f"{kind} {n}", each), kind, each) for n, each in found]


def _named(what: str, signature: Mapping[str, Any]) -> str:
    return f"{what} ({signature.get('task', '?')})"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A target that Celery cannot send as it is."""

    task_id: str
    name: str
    error: Failure

    @property
    def target(self) -> str:
        """Its name in log and notes."""
        return f"{self.name}{_OF}{self.task_id}"


@dataclass(frozen=True, slots=True)
class Told:
    """The result of a delivery."""

    done: bool
    """No target is left; else a sweep delivers to the rest."""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By task id, the names of the targets that got the outcome."""
    refused: tuple[Refusal, ...] = ()
    refusal: str = ""
    """Why the result server refused a key, if the delivery is not done for that reason."""


TOLD, NOT_TOLD = Told(True), Told(False)


def note_of(target: str, error: Failure) -> str:
    """The note in a saga's attention for a target that was refused."""
    return f"{target}{_REFUSED}{error.type}: {error.message}"[:_MOST]


def parked_notes(saga: Saga) -> tuple[str, ...]:
    """The notes of targets that wait for an operator; a terminated saga has none."""
    if saga.terminated:
        return ()
    return tuple(note for note in saga.attention if _REFUSED in note)


def parked_targets(saga: Saga) -> dict[str, set[str]]:
    """The names of targets that wait for an operator, by task id."""
    found: dict[str, set[str]] = {}
    for note in saga.attention:
        if _REFUSED in note:
            name, _, task_id = note.partition(_REFUSED)[0].rpartition(_OF)
            found.setdefault(task_id, set()).add(name)
    return found
