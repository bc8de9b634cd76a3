"""How does a claimed attempt become a result or a verdict?

The engine claims an attempt, builds its `Context` and calls

    try:
        result = execute(worker, context, token=nonce, timeout_s=step_timeout)
    except LeaseLost:
        ...                       # cancel(nonce) was called; there is nothing to report
    except Exception as error:
        verdict = classify(error)  # report failure, outcome, retryable, retry_after_ms

For a compensation, `undo_refused(result)` says whether the result is a failure.

A plain function runs in the calling thread: nothing here can stop it, and the engine keeps its
timeout.  An ``async def`` runs on the process's loop (see `loop`).  Its timeout and `cancel` reach
it as asyncio's cancellation, and the calling thread waits (see `async_attempts`).  Any error that
leaves a function ends its attempt (see `escapes`).  No Redis.
"""

from __future__ import annotations

import inspect
import math
import time
from bdb import BdbQuit
from functools import partial
from typing import Any

from pydantic import ValidationError

from multiagents.core.entries import Failure
from multiagents.core.error_names import is_repeated, names_of
from multiagents.core.exceptions import (
    InvalidInput,
    InvalidResult,
    LoopBlocked,
    NonRetryableError,
    StepTimeout,
)
from multiagents.core.places import defined, in_brackets, own_line
from multiagents.core.policies import MAX_RETRY_AFTER_S
from multiagents.core.ports import Verdict
from multiagents.core.settings import get_settings
from multiagents.core.states import FailureEffect, Kind
from multiagents.worker_sdk.async_attempts import await_attempt
from multiagents.worker_sdk.async_attempts import cancel as cancel
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.escapes import ends_process, failure_of_escape, is_of_a_cold_stop
from multiagents.worker_sdk.registry import Worker
from multiagents.worker_sdk.validation import check_result, explain, redact

MAX_MESSAGE = 2000
"""The most characters of an error that a saga keeps."""
MAX_PLACE = 200
"""The most characters of its place; the last ones are kept, which name file and line."""
IN_A_DEBUGGER = (
    "its debugger was left, or found no terminal: breakpoint() works in"
    " `multiagents dev --pool solo`"
)


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
    """Run one attempt; returns its result, and the result's JSON.

    ``timeout_s`` None: the worker's own.  ``limit``: bytes of the result's JSON, None: the setting.
    Raises the function's error; InputRefused if it was not entered; InvalidResult; StepTimeout;
    LeaseLost after ``cancel(token)``.
    """
    arguments = _arguments(worker, context)
    limit_s = worker.timeout_s if timeout_s is None else timeout_s
    finish = partial(_finished, worker, limit)
    began = time.monotonic()
    try:
        returned = worker(*arguments)
        if inspect.isawaitable(returned):
            returned = await_attempt(
                worker.name,
                returned,
                token=token,
                timeout_s=limit_s,
                used_s=time.monotonic() - began,
                finish=lambda late: finish(late)[1],
                about=_about(context),
            )
    except Exception:
        raise
    except BaseException as error:
        # An error that ends a child or a worker passes: the worker's main process, or the lease,
        # decides over the attempt.
        if ends_process(error):
            raise
        raise failure_of_escape(worker.name, error) from error
    return finish(returned)


def classify(error: BaseException) -> Verdict:
    """The verdict of an exception (rule 2): its outcome, and whether a retry makes sense.

    The step's policy has the last word on a retry, by the names of the error's classes.
    """
    error = _alone(error)
    displaced = isinstance(error, LoopBlocked)
    clean = (
        isinstance(error, InputRefused)
        or (isinstance(error, NonRetryableError) and error.clean)
        or (isinstance(error, LoopBlocked) and not error.entered)
    )
    # In these two cases the function need not be at fault, so no policy applies.
    classes = () if displaced or is_of_a_cold_stop(error) else names_of(error)
    return Verdict(
        failure=failure_of(error),
        effect=FailureEffect.CLEAN if clean else FailureEffect.UNKNOWN,
        retryable=not classes or is_repeated(classes, Kind.RUN),
        retry_after_ms=_retry_after_ms(error),
        counts=not displaced,
        classes=classes,
    )


def failure_of(error: BaseException) -> Failure:
    """The error as data, without secrets, its message cut to 2,000 characters."""
    place = (error.place if isinstance(error, StepTimeout) else "") or own_line(error)
    return Failure(type(error).__qualname__, _shown(_message(error)), place[-MAX_PLACE:])


def undo_refused(result: dict[str, Any]) -> str | None:
    """The reason why a returned compensation counts as failed (rule 5); None if it does not."""
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


def _finished(worker: Worker, limit: int | None, returned: Any) -> tuple[dict[str, Any], str]:
    most = get_settings().max_result_bytes if limit is None else limit
    try:
        return check_result(_modelled(worker, returned), worker.name, most)
    except InvalidResult as error:  # of the engine's code: it has no line of the worker's
        raise InvalidResult(f"{error}{in_brackets(defined(worker.function))}") from error


def _about(context: Context) -> dict[str, Any]:
    if not context.transaction_id:
        return {}
    return {
        "saga": context.transaction_id,
        "step": context.step,
        "attempt": context.attempt,
    }


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


def _alone(error: BaseException) -> BaseException:
    """The error itself; or the only error of a group, as a TaskGroup raises it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    return error


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
    if isinstance(error, BdbQuit):
        return IN_A_DEBUGGER
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the user's own __str__ may raise anything
        return f"(its message could not be read: {type(broken).__name__})"


def _shown(text: str) -> str:
    # A wide cut first, so that a huge message costs little.  The fine cut follows the redaction,
    # so that it cannot split a secret.
    return redact(text[: 4 * MAX_MESSAGE])[:MAX_MESSAGE]
