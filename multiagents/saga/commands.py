"""Which commands can a decision contain?

Values only: the engine turns them into outbox entries, timers and messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from multiagents.core.attempt_ref import AttemptRef, OfAttempt
from multiagents.core.states import Kind, SagaState
from multiagents.workflows.step import TaskCall


@dataclass(frozen=True, slots=True)
class Dispatch(OfAttempt):
    """Have a worker run or undo a step."""

    kind: Kind
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Withdraw(OfAttempt):
    """Take back a dispatched attempt, unless a worker has claimed it already."""

    kind: Kind
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Append `TimerDue(timer)` at ``at_ms``, Unix milliseconds."""

    timer: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class ClearTimer:
    """Forget a timer; one that was never set is no error."""

    timer: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """Deliver the outcome to the waiters: ``state``, even if an operator acts later."""

    state: SagaState


@dataclass(frozen=True, slots=True)
class TellAgain:
    """Deliver the first outcome again to the targets that were parked."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Use the late result of a given-up attempt as its step's result from now on."""

    step: str
    nonce: str
    """Of its claim."""


Command = Dispatch | Withdraw | SetTimer | ClearTimer | Deliver | TellAgain | Adopt

FIRST_COMMANDS: Mapping[type[str | TaskCall], Callable[[Kind, str, int], Command]] = {
    str: Dispatch,
    TaskCall: Dispatch,
}
"""The command that begins an attempt, by the type of its target: one row for each kind of step."""

DEADLINE = "deadline"


def retry_timer(ref: AttemptRef) -> str:
    """The timer after which the attempt that follows this one is dispatched."""
    return ref.text


def parse_retry_timer(timer: str) -> AttemptRef:
    """The attempt that `retry_timer` was given."""
    return AttemptRef.parse(timer)
