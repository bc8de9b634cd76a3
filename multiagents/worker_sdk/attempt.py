"""How does a claimed attempt become a call of its function?

From the assignment's JSON to a `Context`, and through `execute` to the JSON of the result.  An
exception becomes a verdict for the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from multiagents.core.error_names import is_repeated
from multiagents.core.exceptions import (
    LeaseLost,
    StepTimeout,
    WorkerExecutionError,
)
from multiagents.core.json_text import loads
from multiagents.core.places import own_line
from multiagents.core.ports import Assignment, Verdict
from multiagents.core.states import Kind
from multiagents.worker_sdk.context import Context, build_data
from multiagents.worker_sdk.control import SoftTimeLimitExceeded, TaskPredicate
from multiagents.worker_sdk.execute import classify, execute_to_json, undo_refused
from multiagents.worker_sdk.registry import Worker


class Leases(Protocol):
    """Keeps an attempt alive while its function runs."""

    def note(self, held: Assignment, field: str, value: Any) -> bool:
        """Store progress (``p``) or a checkpoint (``k``); False if the lease is lost."""


def perform(
    worker: Worker, held: Assignment, leases: Leases, *, limit: int
) -> tuple[dict[str, Any], str]:
    """Run the function for an attempt; its result, and its JSON of at most ``limit`` bytes.

    Raises the function's error, InvalidResult, or LeaseLost.  A function that returned is reported
    even if its lease is lost: its effect has happened, and may have to be undone (E6).
    """
    context = context_of(held, leases)
    try:
        result, text = execute_to_json(
            worker, context, token=held.nonce, timeout_s=held.timeout_s, limit=limit
        )
    except SoftTimeLimitExceeded as error:
        limit_s = worker.timeout_s if held.timeout_s is None else held.timeout_s
        raise StepTimeout.of(worker.name, limit_s).standing_at(own_line(error)) from error
    except (TaskPredicate, MemoryError) as error:
        raise WorkerExecutionError(_foreign(worker.name, error)) from error
    if held.kind is Kind.UNDO:
        refusal = undo_refused(result)
        if refusal is not None:
            raise WorkerExecutionError(refusal)
    return result, text


def _foreign(name: str, error: BaseException) -> str:
    """The message for an error to which Celery gives another meaning; here it is a failure.

    Celery calls no errback for Ignore and Retry, so the attempt would never end.  A MemoryError
    ends the whole prefork worker, with the steps of all its children.
    """
    if isinstance(error, MemoryError):
        return f"worker {name!r} ran out of memory: {error}"
    kind = type(error).__name__
    return f"worker {name!r} raised Celery's {kind}: return a result, or raise another error"


def context_of(held: Assignment, leases: Leases) -> Context:
    """The context that the function receives."""
    results = Results(held.results)
    own = loads(held.step_result) if held.step_result else None
    meta = loads(held.meta)

    def heartbeat(progress: float | None, note: str) -> None:
        _keep(leases, held, "p", {"progress": progress, "note": note})

    def checkpoint(value: Any) -> None:
        _keep(leases, held, "k", value)

    return Context(
        _data(held, results, own),
        transaction_id=held.saga_id,
        correlation_id=meta.get("correlation_id", held.saga_id),
        workflow=held.workflow,
        step=held.step,
        attempt=held.attempt,
        idempotency_key=held.idempotency_key,
        results=results,
        checkpoint_value=loads(held.checkpoint) if held.checkpoint else None,
        step_result=own,
        step_idempotency_key=held.step_idempotency_key,
        error=held.error,
        on_heartbeat=heartbeat,
        on_checkpoint=checkpoint,
    )


def _data(held: Assignment, results: Results, own: Any) -> dict[str, Any]:
    """The input overlaid with the earlier results, and for an undo with the step's own."""
    if held.merged is not None:
        data: dict[str, Any] = loads(held.merged)
        return data
    layers = [*results.values(), *([own] if isinstance(own, dict) else [])]
    return build_data(loads(held.input), layers)


class Results(Mapping[str, dict[str, Any]]):
    """The results by step name, each parsed at its first use: a long chain has many."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._parsed: dict[str, dict[str, Any]] = {}

    def __getitem__(self, step: str) -> dict[str, Any]:
        if step not in self._parsed:
            self._parsed[step] = loads(self._texts[step])
        return self._parsed[step]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return repr(dict(self))


def _keep(leases: Leases, held: Assignment, field: str, value: Any) -> None:
    if not leases.note(held, field, value):
        raise LeaseLost(f"step {held.step!r}: its lease is lost, another attempt may have begun")


def verdict_of(error: BaseException, kind: Kind) -> Verdict:
    """The verdict of an exception; an undo is retried unless its error rules that out."""
    verdict = classify(error)
    if not verdict.classes:
        return verdict
    return replace(verdict, retryable=is_repeated(verdict.classes, kind))
