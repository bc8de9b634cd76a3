"""How does a claimed attempt become a result or a verdict?

The engine claims an attempt, builds its `Context` and calls

    try:
        result = execute(worker, context, token=nonce, timeout_s=step_timeout)
    except LeaseLost:
        ...                       # somebody called cancel(nonce); there is nothing to report
    except Exception as error:
        verdict = classify(error)  # report failure, outcome, retryable, retry_after_ms

and, for a compensation, asks `undo_refused(result)` whether that result is a failure.

A plain function runs in the calling thread: nothing here can stop it, its time-out is the
engine's.  An ``async def`` runs on the process's loop (see `loop`), where its time-out and
`cancel` reach it as asyncio's cancellation; the calling thread waits.  No Redis, no Celery.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable
from concurrent.futures import CancelledError, Future
from typing import Any

from billiard.common import terminate_handler_fired
from pydantic import ValidationError

from multiagents.core.entries import Failure
from multiagents.core.exceptions import (
    InvalidInput,
    InvalidResult,
    LeaseLost,
    NonRetryableError,
    NotAllowed,
    StepTimeout,
    WorkerExecutionError,
)
from multiagents.core.policies import MAX_RETRY_AFTER_S
from multiagents.core.ports import Verdict
from multiagents.core.settings import get_settings
from multiagents.core.states import Outcome
from multiagents.worker_sdk import loop
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.registry import Worker
from multiagents.worker_sdk.validation import check_result, explain, redact

MAX_MESSAGE = 2000
"""Characters of an error that a saga keeps."""
CANCEL_GRACE_S = 1.0
"""How long a cancelled coroutine may clean up before its thread goes on without it."""

_running: dict[str, Future[Any]] = {}
"""Async attempts at work, by token; `cancel` takes them out."""
_overdue: set[str] = set()
"""Those that were cancelled because their time is over."""


class InputRefused(InvalidInput):
    """The input does not fit the worker's model; the function was not entered."""


def execute(
    worker: Worker,
    context: Context,
    *,
    token: str = "",
    timeout_s: float | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Run one attempt and return its result: `execute_to_json` without the text."""
    return execute_to_json(worker, context, token=token, timeout_s=timeout_s, limit=limit)[0]


def execute_to_json(
    worker: Worker,
    context: Context,
    *,
    token: str = "",
    timeout_s: float | None = None,
    limit: int | None = None,
) -> tuple[dict[str, Any], str]:
    """Run one attempt and return its result, and that as JSON.

    ``timeout_s`` None: the worker's own.  ``limit``: bytes of the result's JSON, None: the setting.
    Raises what the function raised; InputRefused before it
    was entered; InvalidResult; StepTimeout; LeaseLost after ``cancel(token)``.
    """
    arguments = _arguments(worker, context)
    limit_s = worker.timeout_s if timeout_s is None else timeout_s
    try:
        returned = worker(*arguments)
        if inspect.isawaitable(returned):
            returned = _wait(worker.name, returned, token=token, timeout_s=limit_s)
    except SystemExit as error:
        # Celery's own shut-down passes, and that of a child which was told to end: its function
        # did not call sys.exit(), and the worker's main process says what becomes of the attempt.
        if type(error) is not SystemExit or terminate_handler_fired():
            raise
        raise WorkerExecutionError(f"worker {worker.name!r} called sys.exit()") from error
    most = get_settings().max_result_bytes if limit is None else limit
    return check_result(_modelled(worker, returned), worker.name, most)


def cancel(token: str, *, overdue: bool = False) -> bool:
    """Cancel the async attempt of that token; False if there is none (a plain function, or over).

    Its `execute` raises LeaseLost at once, or StepTimeout if it is ``overdue``; the coroutine
    gets asyncio's CancelledError.
    """
    future = _running.pop(token, None)
    if future is None:
        return False
    if overdue:
        _overdue.add(token)
    return future.cancel()


def classify(error: BaseException) -> Verdict:
    """What an exception means for the step (rule 2): its outcome, and whether to try again."""
    clean = isinstance(error, InputRefused) or (
        isinstance(error, NonRetryableError) and error.clean
    )
    retryable = _retryable(error)
    return Verdict(
        failure=failure_of(error),
        outcome=Outcome.CLEAN if clean else Outcome.UNKNOWN,
        retryable=retryable,
        retry_after_ms=_retry_after_ms(error) if retryable else None,
    )


def failure_of(error: BaseException) -> Failure:
    """The error as data, without secrets, its message cut to 2,000 characters."""
    return Failure(type(error).__qualname__, _shown(_message(error)))


def undo_refused(result: dict[str, Any]) -> str | None:
    """Why a compensation that returned has failed all the same (rule 5); None if it has not."""
    asks = bool(result.get("requires_manual_intervention"))
    if result.get("status") != "failed" and not asks:
        return None
    said = result.get("error") or result.get("message")
    what = "requires_manual_intervention" if asks else "status 'failed'"
    return _shown(str(said)) if said else f"the compensation returned {what}"


def _arguments(worker: Worker, context: Context) -> tuple[Any, ...]:
    if worker.input_model is None:
        return (context,)
    try:
        model = worker.input_model.model_validate(dict(context))
    except ValidationError as error:
        raise InputRefused(
            f"input of worker {worker.name!r} is refused by {worker.input_model.__name__}:"
            f" {explain(error)}"
        ) from error
    return (model, context) if worker.takes_context else (model,)


def _modelled(worker: Worker, returned: Any) -> Any:
    model = worker.output_model
    if model is None or isinstance(returned, model):
        return returned
    try:
        return model.model_validate({} if returned is None else returned)
    except ValidationError as error:
        raise InvalidResult(
            f"result of {worker.name!r} is refused by {model.__name__}: {explain(error)}"
        ) from error


def _wait(name: str, awaitable: Awaitable[Any], *, token: str, timeout_s: float | None) -> Any:
    if loop.on_loop_thread():
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise NotAllowed(
            f"worker {name!r} was run from another async worker, which would wait for itself; run"
            " it with asyncio.to_thread"
        )
    future = loop.submit(_bounded(name, awaitable, timeout_s))
    if token:
        _running[token] = future
    try:
        return future.result(None if timeout_s is None else timeout_s + CANCEL_GRACE_S)
    except TimeoutError as error:
        if future.done():  # the function's own error
            return future.result()
        raise _timed_out(name, timeout_s) from error
    except CancelledError as error:
        if token in _overdue:
            raise _timed_out(name, timeout_s) from error
        if token and token not in _running:
            raise LeaseLost(f"worker {name!r} was cancelled: it no longer owns its step") from error
        raise WorkerExecutionError(f"worker {name!r} was cancelled from inside") from error
    finally:
        future.cancel()  # a signal may have ended the wait; of a future that is done, nothing
        _running.pop(token, None)
        _overdue.discard(token)


async def _bounded(name: str, awaitable: Awaitable[Any], timeout_s: float | None) -> Any:
    try:
        async with asyncio.timeout(timeout_s) as scope:
            return await awaitable
    except TimeoutError as error:
        if scope.expired():
            raise _timed_out(name, timeout_s) from error
        raise


def _timed_out(name: str, timeout_s: float | None) -> StepTimeout:
    return StepTimeout(f"worker {name!r} did not end within its time-out of {timeout_s} s")


def _retryable(error: BaseException) -> bool:
    if isinstance(error, WorkerExecutionError):
        return True
    return not isinstance(error, ValueError | ValidationError | NonRetryableError | InvalidResult)


def _retry_after_ms(error: BaseException) -> int | None:
    for name in ("retry_after", "retry_after_s"):
        seconds = getattr(error, name, None)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            continue
        if seconds >= 0 and not math.isnan(seconds):
            return round(min(seconds, MAX_RETRY_AFTER_S) * 1000)
    return None


def _message(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return explain(error)
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the user's own __str__ may raise anything
        return f"(its message could not be read: {type(broken).__name__})"


def _shown(text: str) -> str:
    # Cut widely first, so that a huge message costs little, and finely after: a secret that the
    # fine cut would have split is gone by then.
    return redact(text[: 4 * MAX_MESSAGE])[:MAX_MESSAGE]
