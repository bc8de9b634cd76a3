"""Which verdict does an attempt's error get, and which a compensation's result?"""

from __future__ import annotations

from bdb import BdbQuit
from typing import Any

import pytest
from celery.concurrency.base import BasePool
from pydantic import BaseModel, ValidationError

from multiagents.core.error_names import PROGRAMMERS_OWN
from multiagents.core.exceptions import (
    CircuitBreakerOpenError,
    InvalidResult,
    NonRetryableError,
    StepTimeout,
    WorkerExecutionError,
)
from multiagents.core.states import FailureEffect, Kind
from multiagents.worker_sdk.attempt import verdict_of
from multiagents.worker_sdk.execute import InputRefused, classify, undo_refused


class Order(BaseModel):
    amount: int


class Unfinished(NotImplementedError):
    """A mistake with a name."""


class Later(WorkerExecutionError, KeyError):
    """An error that requests a retry gets it, whatever else it is."""


@pytest.mark.parametrize(
    ("error", "effect", "retryable"),
    [
        (WorkerExecutionError("later"), FailureEffect.UNKNOWN, True),
        (CircuitBreakerOpenError("open", 5), FailureEffect.UNKNOWN, True),
        (StepTimeout("slow"), FailureEffect.UNKNOWN, True),
        (OSError("gone"), FailureEffect.UNKNOWN, True),
        (KeyError("x"), FailureEffect.UNKNOWN, False),
        (ModuleNotFoundError("x"), FailureEffect.UNKNOWN, False),
        (Unfinished("x"), FailureEffect.UNKNOWN, False),
        (Later("x"), FailureEffect.UNKNOWN, True),
        (BdbQuit(), FailureEffect.UNKNOWN, False),
        (NonRetryableError("no"), FailureEffect.UNKNOWN, False),
        (NonRetryableError("no", clean=True), FailureEffect.CLEAN, False),
        (ValueError("bad"), FailureEffect.UNKNOWN, False),
        (InvalidResult("bad"), FailureEffect.UNKNOWN, False),
        (InputRefused("bad"), FailureEffect.CLEAN, False),
    ],
)
def test_the_verdict_follows_rule_2(
    error: Exception, effect: FailureEffect, retryable: bool
) -> None:
    """A verdict says separately whether the attempt was clean and whether a retry makes sense."""
    verdict = classify(error)
    assert (verdict.effect, verdict.retryable) == (effect, retryable)
    assert verdict.failure.type == type(error).__qualname__


def test_a_group_of_one_error_is_that_error() -> None:
    """A TaskGroup wraps its first task's error; a group of several errors stays a group."""
    one = classify(ExceptionGroup("tasks", [ExceptionGroup("inner", [KeyError("x")])]))
    two = classify(ExceptionGroup("tasks", [KeyError("x"), OSError("gone")]))
    assert (one.failure.type, one.retryable) == ("KeyError", False)
    assert (two.failure.type, two.retryable) == ("ExceptionGroup", True)


def test_a_breakpoint_without_a_terminal_says_where_it_works() -> None:
    """A worker's children have no terminal, so the debugger ends there without a message."""
    assert "`multiagents dev --pool solo`" in classify(BdbQuit()).failure.message


@pytest.mark.parametrize("cls", sorted(PROGRAMMERS_OWN, key=str))
def test_a_programmers_error_is_not_tried_again_by_a_step(cls: type[Exception]) -> None:
    """Derived classes are not retried either; an undo is."""
    for each in (cls, type("Derived", (cls,), {})):
        assert not verdict_of(each("x"), Kind.RUN).retryable
        assert verdict_of(each("x"), Kind.UNDO).retryable


@pytest.mark.parametrize("error", [NonRetryableError("no"), BdbQuit()])
def test_an_undo_gives_up_for_what_is_of_no_use(error: Exception) -> None:
    """Rule 5: an undo stops for errors its author names and for a debugger without a terminal."""
    assert not verdict_of(error, Kind.UNDO).retryable


def test_celerys_own_stumble_is_not_the_functions_error() -> None:
    """A cold stop of the solo pool raises NotImplementedError inside any running code."""
    with pytest.raises(NotImplementedError) as caught:
        BasePool().terminate_job(1)
    verdict = classify(caught.value)
    assert (verdict.retryable, verdict.classes) == (True, ())


def test_a_validation_error_is_final_and_shows_no_values() -> None:
    """The rejected value may be a secret."""
    with pytest.raises(ValidationError) as caught:
        Order.model_validate({"amount": "hunter2"})
    verdict = classify(caught.value)
    assert not verdict.retryable
    assert "hunter2" not in verdict.failure.message
    assert verdict.failure.message.startswith("amount: Input should be a valid integer")


@pytest.mark.parametrize(
    ("given", "honoured_ms"),
    [
        (2.5, 2500),
        (0, 0),
        (10**9, 3_600_000),
        (float("inf"), 3_600_000),
        (-1, None),
        (float("nan"), None),
        (None, None),
        ("5", None),
        (True, None),
    ],
)
def test_retry_after_is_honoured_up_to_an_hour(given: Any, honoured_ms: int | None) -> None:
    """Our own errors and a provider's count, under either attribute name."""
    assert classify(WorkerExecutionError("x", given)).retry_after_ms == honoured_ms
    error = OSError("busy")
    error.retry_after_s = given  # type: ignore[attr-defined]  # as providers' errors have it
    assert classify(error).retry_after_ms == honoured_ms


def test_an_error_that_is_not_retried_keeps_its_retry_after() -> None:
    """A policy that names the error uses it."""
    error = ValueError("x")
    error.retry_after = 5  # type: ignore[attr-defined]  # as providers' errors have it
    assert classify(error).retry_after_ms == 5000


def test_a_failure_is_short_and_holds_no_secret() -> None:
    """The cut leaves no part of a secret."""
    message = "x" * 1990 + " redis://u:hunter2@host"
    shown = classify(OSError(message)).failure.message
    assert len(shown) <= 2000
    assert "hun" not in shown


def test_an_error_that_cannot_be_printed_is_still_a_failure() -> None:
    """A broken __str__ does not replace the error."""

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    failure = classify(BrokenError()).failure
    assert failure.type.endswith("BrokenError")
    assert failure.message == "(its message could not be read: RuntimeError)"


@pytest.mark.parametrize(
    ("result", "refusal"),
    [
        ({"status": "success"}, None),
        ({}, None),
        ({"status": "no_action_needed", "requires_manual_intervention": False}, None),
        ({"status": "failed"}, "the compensation returned status 'failed'"),
        ({"status": "failed", "error": "no such refund"}, "no such refund"),
        ({"status": "failed", "error": "api_key=hunter2"}, "api_key=***"),
        (
            {"requires_manual_intervention": True},
            "the compensation returned requires_manual_intervention",
        ),
    ],
)
def test_a_compensation_that_says_it_failed_has_failed(
    result: dict[str, Any], refusal: str | None
) -> None:
    """Rule 5: the seeds' compensations return their failures."""
    assert undo_refused(result) == refusal


def test_every_time_out_has_one_wording() -> None:
    """The message has the seconds and the name of the option that sets them."""
    assert str(StepTimeout.of("pay", 2.0)) == "worker 'pay' ran longer than its timeout_s of 2 s"
    assert str(StepTimeout.of("pay", 0.5, "and is still at work")).endswith(
        "of 0.5 s, and is still at work"
    )
    own = "worker 'pay' ran longer than Celery's soft time limit"
    assert str(StepTimeout.of("pay", None)) == own
