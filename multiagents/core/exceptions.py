"""What can go wrong, grouped by what the caller does next?

Fix the input (`InvalidInput` and its children), retry (`WorkerExecutionError`), give up
(`NonRetryableError`, `SagaFailed`), or call an operator (`DamagedSaga`).  Every error survives
pickling and JSON: it is rebuilt from its constructor's arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class MultiAgentsError(Exception):
    """Root of every error that this package raises."""


class InvalidInput(MultiAgentsError, ValueError):
    """The caller's input is unusable; the message names the mistake and what to do."""


class InvalidWorkflow(InvalidInput):
    """A workflow definition with mistakes; ``errors`` names each with its place."""

    def __init__(self, message: str, errors: tuple[str, ...] = ()) -> None:
        super().__init__(message, errors)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownWorkflow(InvalidInput):
    """No workflow of that name is registered here or published by a running worker."""


class UnknownWorker(InvalidInput):
    """A step names a worker that no running worker process publishes."""


class UnknownSaga(InvalidInput, LookupError):
    """There is no saga with that id; it may have passed its retention."""


class IdempotencyConflict(InvalidInput):
    """The idempotency key belongs to a saga that was started with another input.

    No saga was started.  ``transaction_id`` is that of the earlier saga.
    """

    def __init__(self, message: str, transaction_id: str = "") -> None:
        super().__init__(message, transaction_id)
        self.transaction_id = transaction_id

    def __str__(self) -> str:
        return str(self.args[0])


class DamagedSaga(MultiAgentsError):
    """Some of a saga's keys are missing, have another type, or cannot be read: call an operator.

    ``problems`` lists the damage.  Other sagas are not affected.
    """

    def __init__(self, saga_id: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(saga_id, problems)
        self.saga_id = saga_id
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return (
            f"saga {self.saga_id!r} is damaged: {'; '.join(self.problems)}. Find out what its steps"
            f" have done, then remove it: multiagents remove {self.saga_id}"
        )


class NotAllowed(InvalidInput):
    """The saga's state does not allow this action; ``allowed`` lists the actions that it allows."""

    def __init__(self, message: str = "", allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message, allowed)
        self.allowed = tuple(allowed)

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidResult(MultiAgentsError):
    """A worker's result cannot be stored: not JSON, or too large.  The message names the key."""


class WorkerExecutionError(MultiAgentsError):
    """Raise from a worker to retry the step.

    ``retry_after`` is in seconds, at most one hour, and overrides the back-off.
    """

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class NonRetryableError(MultiAgentsError):
    """Raise from a worker to fail the step at once.

    ``clean=True`` means that the step had no effect, so that it needs no compensation.
    """

    def __init__(self, message: str = "", clean: bool = False) -> None:
        super().__init__(message, clean)
        self.clean = clean

    def __str__(self) -> str:
        return str(self.args[0])


class StepTimeout(MultiAgentsError, TimeoutError):
    """A step ran longer than its ``timeout_s``.

    ``place``: the line of the user's code that ran then; empty if it is not known.
    """

    place = ""

    @classmethod
    def of(cls, worker: str, timeout_s: float | None, *more: str) -> StepTimeout:
        """The error with its standard text; ``timeout_s`` None: a limit of Celery's own."""
        limit = (
            "Celery's soft time limit" if timeout_s is None else f"its timeout_s of {timeout_s:g} s"
        )
        return cls(", ".join((f"worker {worker!r} ran longer than {limit}", *more)))

    def standing_at(self, place: str) -> Self:
        """The same error with its place."""
        self.place = place
        return self


class LoopBlocked(MultiAgentsError):
    """Another attempt blocked the event loop of this attempt.

    ``entered``: whether its function had begun.  The attempt is retried soon, and does not count.
    """

    def __init__(self, message: str = "", entered: bool = False) -> None:
        super().__init__(message, entered)
        self.entered = entered
        self.retry_after = 0.5

    def __str__(self) -> str:
        return str(self.args[0])


class LeaseLost(MultiAgentsError):
    """This attempt no longer owns its step: its lease expired, and another may have begun."""


class CircuitBreakerOpenError(WorkerExecutionError):
    """The circuit of a worker is open: the function was not called."""


class NoServer(MultiAgentsError):
    """No Redis-compatible server could be reached, found or started; lists the tried servers."""


class NotWritable(NoServer):
    """The server answers but temporarily refuses writes: it is full, a replica, or has no disk.

    Nothing was stored.  The message names the server and the reason; retry after its repair.
    """


class NewerFormat(MultiAgentsError):
    """The sagas are stored in a format that a newer version wrote: upgrade this process.

    ``stored`` and ``known`` are the formats' numbers.
    """

    def __init__(self, stored: int, known: int) -> None:
        super().__init__(stored, known)
        self.stored, self.known = stored, known

    def __str__(self) -> str:
        return (
            f"the sagas are stored in format {self.stored}, and this version of multiagents"
            f" supports formats up to {self.known}: upgrade it"
        )


def told_of_error(error: Mapping[str, Any]) -> str:
    """An error from its data, on one line: ``KeyError: 'amount' (pay.py:35)``."""
    place = f" ({error['place']})" if error.get("place") else ""
    return f"{error.get('type', 'Error')}: {error.get('message', '')}{place}"


class SagaFailed(MultiAgentsError):
    """A saga ended without completing.

    ``error`` is the original error (rule 11) as ``{"type", "message"}``, with ``place`` if the line
    of your code that raised it is known (``pay.py:35``).  ``step`` is the failed step (None: the
    saga itself, as with a deadline), ``state`` the saga's final state, and ``undo`` the undo by
    step: ``{STEP: {"state", "attempts", "error"}}``.
    """

    def __init__(
        self,
        transaction_id: str,
        state: str = "failed",
        step: str | None = None,
        error: dict[str, Any] | None = None,
        undo: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(transaction_id, state, step, error, undo)
        self.transaction_id = transaction_id
        self.state = state
        self.step = step
        self.error = error or {}
        self.undo = undo or {}

    def __str__(self) -> str:
        cause = told_of_error(self.error)
        place = f"step {self.step!r} failed" if self.step else "the saga failed"
        undone = ", ".join(f"{step} {undo['state']}" for step, undo in self.undo.items())
        return (
            f"saga {self.transaction_id} {self.state}: {place} with {cause}"
            f" (undo: {undone or 'nothing to undo'})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON-safe data for `from_dict`."""
        return {
            "transaction_id": self.transaction_id,
            "state": self.state,
            "step": self.step,
            "error": self.error,
            "undo": self.undo,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The error that `to_dict` described."""
        return cls(**data)
