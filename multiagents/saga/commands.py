"""What can a decision ask for?

Values only: `coordinator` turns them into outbox entries, timers and messages.
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
    """Tell whoever waits how the saga ended: with ``state``, whatever a person does after it."""

    state: SagaState


@dataclass(frozen=True, slots=True)
class TellAgain:
    """Tell of the first end what had been parked."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take what an attempt returned after it was given up for its step's result from now on."""

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
