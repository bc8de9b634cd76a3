"""Which entries can a saga's log have?

The log defines the saga: its state is the fold of `saga.decide` over these entries.  So an entry
carries everything that a decision needs, including its own time (``at_ms``, Unix milliseconds),
and never changes.

``encode`` and ``decode`` are the one format of an entry: a JSON list whose first item names the
type.  Fields may be added at the end of a type, with a default; they are never reordered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, ClassVar

from multiagents.core.attempt_ref import OfAttempt
from multiagents.core.json_text import dumps, encodable, loads
from multiagents.core.policies import RetryPolicy
from multiagents.core.states import Action, FailureEffect, Kind


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as data: it crosses processes, so no traceback objects, and no secrets.

    Characters that UTF-8 does not have are escaped: a report that cannot be stored would be lost.
    """

    type: str
    message: str
    place: str = field(default="", compare=False)
    """The line of the user's code that raised it (``pay.py:35``); empty if it is not known."""

    def __post_init__(self) -> None:
        for name in ("type", "message", "place"):
            object.__setattr__(self, name, encodable(getattr(self, name)))

    def to_dict(self) -> dict[str, str]:
        """The failure for users; ``place`` only if it is known."""
        found = {"type": self.type, "message": self.message}
        return {**found, "place": self.place} if self.place else found


@dataclass(frozen=True, slots=True)
class Started:
    """The saga was recorded."""

    type: ClassVar[str] = "started"
    at_ms: int

    @property
    def id(self) -> str:
        return "start"


@dataclass(frozen=True, slots=True)
class Claimed(OfAttempt):
    """A worker has begun an attempt.

    ``nonce`` identifies the claim: reports without it change nothing (fencing).
    ``retry`` is the worker's own policy, for steps whose definition sets none.
    """

    type: ClassVar[str] = "claimed"
    at_ms: int
    kind: Kind
    step: str
    attempt: int
    nonce: str
    worker: str = ""
    retry: RetryPolicy | None = None

    @property
    def id(self) -> str:
        return _attempt_id("c", self)


@dataclass(frozen=True, slots=True)
class Succeeded(OfAttempt):
    """An attempt returned.  Its result is stored beside the saga, not in the log."""

    type: ClassVar[str] = "succeeded"
    at_ms: int
    kind: Kind
    step: str
    attempt: int
    nonce: str

    @property
    def id(self) -> str:
        return _attempt_id("s", self)


@dataclass(frozen=True, slots=True)
class Failed(OfAttempt):
    """An attempt raised, timed out, or lost its process.

    ``retry_after_ms``: None lets the policy's back-off decide.  ``running``: the attempt was given
    up, but its function could not be stopped and may still report.  ``part``: numbers, from 1, the
    late reports of a given-up attempt; ``running`` is true if parts of it still run.  ``counts``:
    whether it uses up one of the policy's attempts; an attempt that another step cut off does not.
    ``classes``: the names of the error's classes, nearest first (see `error_names`), which the
    policy judges; if empty, ``retryable`` decides.  ``place``: the error's place, stored here
    because an earlier version reads an error of two parts.
    """

    type: ClassVar[str] = "failed"
    at_ms: int
    kind: Kind
    step: str
    attempt: int
    nonce: str
    error: Failure
    effect: FailureEffect = FailureEffect.UNKNOWN
    retryable: bool = True
    retry_after_ms: int | None = None
    running: bool = False
    part: int = 0
    counts: bool = True
    classes: tuple[str, ...] = ()
    place: str = ""

    def __post_init__(self) -> None:
        place = self.place or self.error.place
        object.__setattr__(self, "place", place)
        if place != self.error.place:
            object.__setattr__(self, "error", replace(self.error, place=place))

    @property
    def id(self) -> str:
        # The function's own report of failure must not count as a repetition of this one.
        own = _attempt_id("g" if self.running else "f", self)
        return f"{own}:{self.part}" if self.part else own


@dataclass(frozen=True, slots=True)
class Lost(OfAttempt):
    """The lease of an attempt expired: its worker died, froze, or exceeded the step's timeout."""

    type: ClassVar[str] = "lost"
    at_ms: int
    kind: Kind
    step: str
    attempt: int
    nonce: str

    @property
    def id(self) -> str:
        return _attempt_id("l", self)


@dataclass(frozen=True, slots=True)
class Unroutable(OfAttempt):
    """No running process has the worker function of a command.

    With ``target``, Celery refused to send a callback of the saga's end (``link 1 (shop.mail) of
    TASK ID``); then step and attempt have no meaning.
    """

    type: ClassVar[str] = "unroutable"
    at_ms: int
    kind: Kind
    step: str
    attempt: int
    error: Failure
    target: str = ""

    @property
    def id(self) -> str:
        if self.target:
            return f"xe:{self.at_ms}:{self.target}"
        return f"x{self.kind[0]}:{self.step}:{self.attempt}"


@dataclass(frozen=True, slots=True)
class Withdrawn(OfAttempt):
    """A dispatched attempt was withdrawn before any worker claimed it.

    The commit that removes the command from the outbox also writes this entry.  If a worker was
    faster, the log has its `Claimed` instead (E3).  ``token`` distinguishes several withdrawals of
    one attempt.
    """

    type: ClassVar[str] = "withdrawn"
    at_ms: int
    kind: Kind
    step: str
    attempt: int
    token: str

    @property
    def id(self) -> str:
        return f"w{self.kind[0]}:{self.step}:{self.attempt}:{self.token}"


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A timer of an earlier decision is due."""

    type: ClassVar[str] = "timer"
    at_ms: int
    timer: str

    @property
    def id(self) -> str:
        return f"t:{self.timer}"


@dataclass(frozen=True, slots=True)
class Requested:
    """An action that an operator (or a program) requested, with its author and reason."""

    type: ClassVar[str] = "asked"
    at_ms: int
    action: Action
    request: str
    """Identifies the request, so that a repeated one counts once."""
    by: str = ""
    reason: str = ""
    step: str = ""
    letter: Kind | None = None
    """The dead letter that the action means: the step or its undo; None: the parked one."""
    parked_at: int = 0
    """The time at which that dead letter was parked, Unix ms; 0: any.  A later one is another."""

    @property
    def id(self) -> str:
        return f"a:{self.request}"


Entry = (
    Started | Claimed | Succeeded | Failed | Lost | Unroutable | Withdrawn | TimerDue | Requested
)
Report = Succeeded | Failed | Lost
"""An entry that ends an attempt."""

_TYPES: dict[str, type[Entry]] = {
    cls.type: cls
    for cls in (
        Started,
        Claimed,
        Succeeded,
        Failed,
        Lost,
        Unroutable,
        Withdrawn,
        TimerDue,
        Requested,
    )
}


def _row_of(cls: type[Entry]) -> tuple[Callable[[Entry], Any], tuple[Any, ...], tuple[int, ...]]:
    """A getter for all values of an entry, their defaults, and the places that are not JSON."""
    names = ("type", *(spec.name for spec in fields(cls)))
    blank = (None, *(spec.default for spec in fields(cls)))
    nested = tuple(place for place, name in enumerate(names) if name in {"error", "retry"})
    return attrgetter(*names), blank, nested


_ROWS = {name: _row_of(cls) for name, cls in _TYPES.items()}


def _attempt_id(letter: str, entry: Claimed | Report) -> str:
    return f"{letter}{entry.kind[0]}:{entry.step}:{entry.attempt}:{entry.nonce}"


def encode(entry: Entry) -> str:
    """The entry in the form of the log, without trailing defaults."""
    values, blank, nested = _ROWS[entry.type]
    row: list[Any] = list(values(entry))
    while row[-1] == blank[len(row) - 1]:
        row.pop()
    for place in nested:
        if place < len(row):
            row[place] = _plain(row[place])
    return dumps(row)


def _plain(value: Any) -> Any:
    if isinstance(value, Failure):
        return [value.type, value.message]
    if isinstance(value, RetryPolicy):
        return value.to_row()
    return value


_REVIVE: dict[str, Any] = {
    "kind": Kind,
    "effect": FailureEffect,
    "action": Action,
    "letter": lambda kind: None if kind is None else Kind(kind),
    "error": lambda row: Failure(*row),
    "retry": lambda row: None if row is None else RetryPolicy.from_row(row),
    "classes": tuple,
}
_FIELDS = {
    name: tuple((spec.name, _REVIVE.get(spec.name)) for spec in fields(cls))
    for name, cls in _TYPES.items()
}


def decode(text: str | bytes) -> Entry:
    """The entry that `encode` wrote.  Raises KeyError for a type that this version lacks."""
    row = loads(text)
    return _TYPES[row[0]](
        **{
            name: value if revive is None else revive(value)
            for (name, revive), value in zip(_FIELDS[row[0]], row[1:], strict=False)
        }
    )
