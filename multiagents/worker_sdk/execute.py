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
`cancel` reach it as asyncio's cancellation; the calling thread waits (see `awaiting`).  Whatever
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
from multiagents.core.states import Kind, Outcome
from multiagents.worker_sdk.async_attempts import await_attempt
from multiagents.worker_sdk.async_attempts import cancel as cancel
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.escapes import ends_process, failure_of_escape, is_of_a_cold_stop
from multiagents.worker_sdk.registry import Worker
from multiagents.worker_sdk.validation import check_result, explain, redact

MAX_MESSAGE = 2000
"""Characters of an error that a saga keeps."""
MAX_PLACE = 200
"""Characters of its place, the last ones, which name file and line."""
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
    """Run one attempt and return its result, and that as JSON.

    ``timeout_s`` None: the worker's own.  ``limit``: bytes of the result's JSON, None: the setting.
    Raises what the function raised; InputRefused before it
    was entered; InvalidResult; StepTimeout; LeaseLost after ``cancel(token)``.
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
        # What ends a child or a worker passes: what becomes of the attempt, the worker's main
        # process or its lease says.
        if ends_process(error):
            raise
        raise failure_of_escape(worker.name, error) from error
    return finish(returned)


def classify(error: BaseException) -> Verdict:
    """What an exception means for the step (rule 2): its outcome, and whether to try again.

    Whether it is tried again in the end, its step's policy says, by the names of its classes.
    """
    error = _alone(error)
    displaced = isinstance(error, LoopBlocked)
    clean = (
        isinstance(error, InputRefused)
        or (isinstance(error, NonRetryableError) and error.clean)
        or (isinstance(error, LoopBlocked) and not error.entered)
    )
    # Of these two nothing says that the function was at fault, and no policy is asked.
    classes = () if displaced or is_of_a_cold_stop(error) else names_of(error)
    return Verdict(
        failure=failure_of(error),
        outcome=Outcome.CLEAN if clean else Outcome.UNKNOWN,
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
    """The error itself; of a group that holds just one, that one: so a TaskGroup tells of it."""
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
    # Cut widely first, so that a huge message costs little, and finely after: a secret that the
    # fine cut would have split is gone by then.
    return redact(text[: 4 * MAX_MESSAGE])[:MAX_MESSAGE]
