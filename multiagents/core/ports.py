"""Through which values do the rooms that may not meet speak with each other?

`engine` knows steps, `worker_sdk` knows functions; `hosting` hands each what it needs of
the other in these types.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, Protocol

from multiagents.core.attempt_ref import AttemptRef, OfAttempt
from multiagents.core.effects import Flow
from multiagents.core.entries import Failure
from multiagents.core.names import QUEUE_IO
from multiagents.core.policies import RetryPolicy
from multiagents.core.states import FailureEffect, Kind


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What the engine must know of a worker function to send it work."""

    name: str
    queue: str = QUEUE_IO
    timeout_s: float | None = None
    retry: RetryPolicy | None = None
    least_lease_s: float = 0.0
    """A lease is at least this long, whatever the setting: for work that may hold the GIL."""
    alone: bool = False
    """Each of its steps is a message of its own: it is neither continued with nor continued."""


class Directory(Protocol):
    """Who can do what: this process's own workers, and what running processes publish."""

    def local(self, name: str) -> WorkerInfo | None:
        """A worker function of this process."""

    def queue_of(self, name: str) -> str:
        """The queue of a worker, the default one if nobody knows it."""

    def alone(self, name: str) -> bool:
        """Whether each step of a worker is a message of its own."""

    def slots(self, queue: str) -> int:
        """How many steps the running workers of a queue can do at once; 0 = not known."""

    def crew(self, queue: str, name: str) -> dict[str, int]:
        """The running workers of a queue that have a function: hostname -> slots."""

    def keep_up(self) -> Flow[None]:
        """A flow: ask who is there, if the last answer is old."""


@dataclass(frozen=True, slots=True)
class Assignment(OfAttempt):
    """One claimed attempt with all that its function needs.  Data is JSON text."""

    saga_id: str
    workflow: str
    version: str
    kind: Kind
    step: str
    attempt: int
    nonce: str
    worker: str
    queue: str
    delivery: str
    """Id of the Celery delivery that holds it."""
    deadline_ms: int = 0
    """When the step's time-out is over, Unix ms; 0 = none."""
    timeout_s: float | None = None
    least_lease_s: float = 0.0
    meta: str = "{}"
    idempotency_key: str = ""
    input: str = "{}"
    results: dict[str, str] = field(default_factory=dict)
    """Of the steps before it, in definition order."""
    merged: str | None = None
    """The input overlaid with the results, where somebody has put it together already."""
    checkpoint: str | None = None
    step_result: str | None = None
    """For a compensation: what the step returned, if it did."""
    step_idempotency_key: str = ""
    error: Failure | None = None
    """For a compensation: why the saga goes backward."""


class Unclaimed(Enum):
    """Why an attempt cannot be claimed."""

    TAKEN = auto()
    """Another message of it has begun it, or will."""
    LATER = auto()
    """Its saga is paused: it is sent again when that goes on."""
    WITHDRAWN = auto()
    """It is no longer to be done."""


@dataclass(frozen=True, slots=True)
class AtWork(OfAttempt):
    """The attempt that a Celery delivery is at."""

    kind: Kind
    step: str
    attempt: int
    worker: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an exception means for the step."""

    failure: Failure
    effect: FailureEffect = FailureEffect.UNKNOWN
    retryable: bool = True
    retry_after_ms: int | None = None
    running: bool = False
    """Given up while the function goes on: it may yet report."""
    part: int = 0
    """See `core.entries.Failed`."""
    counts: bool = True
    """Whether it is one of the attempts that the step's policy allows."""
    classes: tuple[str, ...] = ()
    """The names of the error's classes; without any, ``retryable`` is the last word."""


class Engine(Protocol):
    """What a worker process asks of the coordinator.  Every call may raise the store's errors."""

    def claim(
        self,
        saga_id: str,
        ref: AttemptRef,
        *,
        delivery: str,
        queue: str,
        version: str = "",
    ) -> Assignment | None:
        """Begin an attempt; None if it is no longer to be done.

        ``version`` of the definition, where the message brought it, spares a look-up.
        """

    def unclaimed(self, saga_id: str, ref: AttemptRef) -> Unclaimed:
        """Why `claim` has just given nothing."""

    def succeed(self, done: Assignment, result: str, *, go_on: bool) -> Assignment | None:
        """Report a result (JSON); with ``go_on``, perhaps the next attempt, claimed already."""

    def fail(self, done: Assignment, verdict: Verdict, *, go_on: bool) -> Assignment | None:
        """Report a failure; likewise."""

    def renew(self, held: list[Assignment], notes: dict[str, dict[str, str]]) -> list[Assignment]:
        """Renew leases; return those that are lost.  ``notes`` are by nonce."""

    def count_late(self) -> None:
        """Note that a renewal came late, for `doctor` to show (E9)."""


class Waiting(NamedTuple):
    """A change of the indexes of what waits for a person."""

    which: int
    """0: sagas that ask for attention, 1: dead letters."""
    member: str
    since: int | None
    """Unix ms; None: it waits no longer."""
