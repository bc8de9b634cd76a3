"""Which types connect the rooms that do not import each other?

`engine` handles steps, `worker_sdk` handles functions; `hosting` connects the two with these types.
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
    """The data of a worker function that the engine needs to send it steps."""

    name: str
    queue: str = QUEUE_IO
    timeout_s: float | None = None
    retry: RetryPolicy | None = None
    least_lease_s: float = 0.0
    """The minimum lease, whatever the setting: for functions that may hold the GIL."""
    alone: bool = False
    """Each of its steps gets its own message: no process continues to or from such a step."""


class Directory(Protocol):
    """The worker functions of this process, and those that running processes publish."""

    def local(self, name: str) -> WorkerInfo | None:
        """A worker function of this process."""

    def queue_of(self, name: str) -> str:
        """The queue of a worker, or the default queue if the worker is not known."""

    def alone(self, name: str) -> bool:
        """Whether each step of a worker gets its own message."""

    def slots(self, queue: str) -> int:
        """How many steps the running workers of a queue can run at once; 0 = not known."""

    def crew(self, queue: str, name: str) -> dict[str, int]:
        """The running workers of a queue that have a function: hostname -> slots."""

    def keep_up(self) -> Flow[None]:
        """A flow that reads the running workers again if the last answer is old."""


@dataclass(frozen=True, slots=True)
class Assignment(OfAttempt):
    """One claimed attempt with all data for its function.  Data is JSON text."""

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
    """Id of the Celery delivery that has claimed it."""
    deadline_ms: int = 0
    """The end of the step's timeout, Unix ms; 0 = none."""
    timeout_s: float | None = None
    least_lease_s: float = 0.0
    meta: str = "{}"
    idempotency_key: str = ""
    input: str = "{}"
    results: dict[str, str] = field(default_factory=dict)
    """The results of the steps before it, in definition order."""
    merged: str | None = None
    """The input overlaid with the results, if it was already computed."""
    checkpoint: str | None = None
    step_result: str | None = None
    """For a compensation: the step's result, if there is one."""
    step_idempotency_key: str = ""
    error: Failure | None = None
    """For a compensation: its reason, as an error."""


class Unclaimed(Enum):
    """Why an attempt cannot be claimed."""

    TAKEN = auto()
    """Another message for it has claimed it, or will."""
    LATER = auto()
    """Its saga is paused: it is sent again after the resume."""
    WITHDRAWN = auto()
    """It is no longer to run."""


@dataclass(frozen=True, slots=True)
class AtWork(OfAttempt):
    """The attempt that a Celery delivery runs."""

    kind: Kind
    step: str
    attempt: int
    worker: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The meaning of an exception for the step."""

    failure: Failure
    effect: FailureEffect = FailureEffect.UNKNOWN
    retryable: bool = True
    retry_after_ms: int | None = None
    running: bool = False
    """The attempt was given up while its function continues, which may still report."""
    part: int = 0
    """See `core.entries.Failed`."""
    counts: bool = True
    """Whether it uses up one of the attempts that the step's policy allows."""
    classes: tuple[str, ...] = ()
    """The names of the error's classes; if empty, ``retryable`` decides."""


class Engine(Protocol):
    """The engine's interface for a worker process.  Every call may raise the store's errors."""

    def claim(
        self,
        saga_id: str,
        ref: AttemptRef,
        *,
        delivery: str,
        queue: str,
        version: str = "",
    ) -> Assignment | None:
        """Claim an attempt; None if it is no longer to run.

        The definition's ``version``, if the message has it, saves a look-up.
        """

    def unclaimed(self, saga_id: str, ref: AttemptRef) -> Unclaimed:
        """Why `claim` just returned None."""

    def succeed(self, done: Assignment, result: str, *, go_on: bool) -> Assignment | None:
        """Report a result (JSON); with ``go_on``, may return the next attempt, already claimed."""

    def fail(self, done: Assignment, verdict: Verdict, *, go_on: bool) -> Assignment | None:
        """Report a failure, like `succeed`."""

    def renew(self, held: list[Assignment], notes: dict[str, dict[str, str]]) -> list[Assignment]:
        """Renew leases and return the lost ones.  ``notes`` are by nonce."""

    def count_late(self) -> None:
        """Count a late renewal, for `doctor` (E9)."""


class Waiting(NamedTuple):
    """A change of an index of sagas that wait for an operator."""

    which: int
    """0: sagas that need attention, 1: dead letters."""
    member: str
    since: int | None
    """Unix ms; None: it no longer waits."""
