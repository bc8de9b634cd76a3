"""What does a failing model mean for the saga?

Faults come over real HTTP from the stub provider; `classify` says what they mean, as in the engine.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded

from multiagents.agents.lm_errors import translated
from multiagents.core.exceptions import (
    LeaseLost,
    NonRetryableError,
    StepTimeout,
    WorkerExecutionError,
)
from multiagents.core.settings import get_settings
from multiagents.core.states import FailureEffect
from multiagents.testing.stub_lm import StubProvider
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.execute import cancel, classify, execute
from tests.support.llm import run, worker_of


def look(page: int) -> str:
    """Look at a page."""
    return f"page {page}"


def looking(*tools: Any, **options: Any) -> Any:
    """A worker that calls tools in a loop."""
    return worker_of(
        signature="question -> answer", reasoning="react", tools=tools or (look,), **options
    )


def test_a_rate_limit_is_waited_out(provider: StubProvider) -> None:
    """After a 429 the next attempt waits as long as Retry-After says, and gets the answer."""
    worker = worker_of()
    provider.fail(429, retry_after=7)
    with pytest.raises(WorkerExecutionError, match=r"openai/stub failed \(rate_limit, 429\)") as it:
        run(worker, text="x")
    verdict = classify(it.value)
    assert (verdict.retryable, verdict.retry_after_ms) == (True, 7000)
    assert len(provider.requests) == 1  # DSPy itself tried once
    assert "sentiment" in run(worker, text="x")


@pytest.mark.parametrize("status", [408, 500, 502, 503, 529])
def test_a_failing_provider_is_tried_again(provider: StubProvider, status: int) -> None:
    """A provider's own error is retried, and its effects count as unknown."""
    provider.fail(status)
    with pytest.raises(WorkerExecutionError) as raised:
        run(worker_of(), text="x")
    verdict = classify(raised.value)
    assert (verdict.retryable, verdict.effect) == (True, FailureEffect.UNKNOWN)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_a_refused_request_is_given_up_and_clean(provider: StubProvider, status: int) -> None:
    """A refused request is not retried, and the attempt counts as clean."""
    provider.fail(status)
    with pytest.raises(NonRetryableError, match=str(status)) as raised:
        run(worker_of(), text="x")
    verdict = classify(raised.value)
    assert (verdict.retryable, verdict.effect) == (False, FailureEffect.CLEAN)


def test_an_empty_account_is_given_up(provider: StubProvider) -> None:
    """OpenAI answers 429 for an empty account; a retry does not help there."""
    provider.fail(429, code="insufficient_quota", message="You exceeded your current quota")
    with pytest.raises(NonRetryableError, match="billing"):
        run(worker_of(), text="x")


def test_a_prompt_that_is_too_long_is_given_up(provider: StubProvider) -> None:
    """A prompt beyond the model's limit is not retried."""
    provider.fail(400, code="context_length_exceeded", message="maximum context length exceeded")
    with pytest.raises(NonRetryableError, match="context_window_exceeded"):
        run(worker_of(), text="x")


def test_a_refusal_after_a_tool_ran_is_not_clean(provider: StubProvider) -> None:
    """A tool may have had an effect, so the step is compensated."""
    provider.script({"next_tool_name": lambda inputs: provider.fail(401) and "look"}, times=1)
    with pytest.raises(NonRetryableError) as raised:
        run(looking(), question="x")
    assert classify(raised.value).effect is FailureEffect.UNKNOWN


def test_a_refusal_before_any_tool_is_clean(provider: StubProvider) -> None:
    """A loop that called no tool has had no effect."""
    provider.fail(401)
    with pytest.raises(NonRetryableError) as raised:
        run(looking(), question="x")
    assert classify(raised.value).effect is FailureEffect.CLEAN


def test_a_refusal_after_the_function_is_not_clean(provider: StubProvider) -> None:
    """A function that runs before the model may have had an effect."""
    provider.fail(401)
    with pytest.raises(NonRetryableError) as raised:
        run(worker_of(lambda context: {"text": "made"}), other="x")
    assert classify(raised.value).effect is FailureEffect.UNKNOWN


def test_a_hanging_provider_ends_with_the_request_s_time(provider: StubProvider) -> None:
    """``timeout=`` (seconds per request) ends the wait, and the attempt is retried."""
    provider.hang()
    begun = time.monotonic()
    with pytest.raises(WorkerExecutionError, match="transport"):
        run(worker_of(lm_settings={"timeout": 0.3}), text="x")
    assert time.monotonic() - begun < 2


def test_a_hanging_provider_ends_with_the_step_s_time(provider: StubProvider) -> None:
    """The step's timeout cancels the call at once, and the next step gets its answer."""
    worker = worker_of()
    provider.hang()
    begun = time.monotonic()
    with pytest.raises(StepTimeout):
        execute(worker, Context({"text": "x"}), timeout_s=0.3)
    assert time.monotonic() - begun < 2
    assert "sentiment" in run(worker, text="x")


def test_a_lost_lease_ends_the_wait_for_a_model(provider: StubProvider) -> None:
    """`cancel` ends a model call that is under way."""
    provider.hang()
    ended: list[BaseException] = []

    def attempt() -> None:
        with pytest.raises(LeaseLost) as raised:
            execute(worker_of(), Context({"text": "x"}), token="n1")
        ended.append(raised.value)

    thread = threading.Thread(target=attempt)
    thread.start()
    deadline = time.monotonic() + 5
    while not (provider.requests and cancel("n1")):
        assert time.monotonic() < deadline, "the request was never made"
        thread.join(0.01)
    thread.join(5)
    assert len(ended) == 1


def test_an_answer_that_fits_no_signature_is_tried_again(provider: StubProvider) -> None:
    """The error names the fields and quotes the answer's beginning; no second request is made."""
    provider.garbage()
    with pytest.raises(WorkerExecutionError) as raised:
        run(worker_of(), text="x")
    assert "expected the fields sentiment, confidence" in str(raised.value)
    assert "begins 'Well, that is hard to say" in str(raised.value)
    assert len(provider.requests) == 1


def test_a_loop_asks_once_more_for_a_readable_answer(provider: StubProvider) -> None:
    """The loop sends one more request, because a retry of the step would repeat its tool calls."""
    calls: list[int] = []

    def count(page: int) -> str:
        calls.append(page)
        provider.garbage()
        return "counted"

    assert "answer" in run(looking(count), question="x")
    assert len(calls) == 1


@pytest.mark.parametrize(
    "control",
    [SoftTimeLimitExceeded(), Ignore(), Retry(), StepTimeout("late"), LeaseLost("gone")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_tool_can_end_the_step(provider: StubProvider, control: Exception, kind: str) -> None:
    """An error that decides about the step ends the loop and leaves it unchanged."""

    def stop() -> str:
        raise control

    async def stop_async() -> str:
        raise control

    with pytest.raises(type(control)) as raised:
        run(looking(stop if kind == "plain" else stop_async), question="x")
    assert raised.value is control
    assert len(provider.requests) == 1


def test_a_cancelled_tool_cancels_the_step(provider: StubProvider) -> None:
    """The loop does not turn asyncio's cancellation into an observation."""

    async def stop() -> str:
        raise asyncio.CancelledError

    with pytest.raises(WorkerExecutionError, match="cancelled from inside"):
        run(looking(stop), question="x")
    assert len(provider.requests) == 1


def test_a_time_limit_that_dspy_has_wrapped_is_found() -> None:
    """DSPy wraps errors of its HTTP client; the timeout below is found."""
    import dspy

    limit = SoftTimeLimitExceeded()
    wrapped = dspy.LMUnexpectedError("oops", model="m")
    wrapped.__cause__ = limit
    assert translated(wrapped, worker="w", effects=False) is limit


def test_an_error_of_the_function_stays_itself(provider: StubProvider) -> None:
    """The worker's own errors keep their type, meaning and cause."""

    def fail(context: dict[str, Any]) -> dict[str, Any]:
        raise WorkerExecutionError("the desk is closed", retry_after=3) from OSError("cause")

    with pytest.raises(WorkerExecutionError, match="the desk is closed") as raised:
        run(worker_of(fail), text="x")
    assert isinstance(raised.value.__cause__, OSError)


def test_no_secret_is_in_an_error(provider: StubProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors and their causes omit the keys that providers repeat in their messages."""
    monkeypatch.setenv("OPENAI_API_KEY", "very-private-value")
    provider.fail(401, message="Incorrect API key: very-private-value or sk-abcdefghij0123456789")
    with pytest.raises(NonRetryableError) as raised:
        run(worker_of(), text="x")
    assert "Incorrect API key" in str(raised.value)
    assert "very-private-value" not in str(raised.value)
    assert "abcdefghij" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_no_model_says_how_to_set_one(
    provider: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error shows both ways to name a model, and the attempt counts as clean."""
    monkeypatch.delenv("MULTIAGENTS_LM")
    get_settings.cache_clear()
    with pytest.raises(NonRetryableError) as raised:
        run(worker_of(), text="x")
    assert 'model="gemini/' in str(raised.value)
    assert "MULTIAGENTS_LM=gemini/" in str(raised.value)
    assert raised.value.clean


def test_no_key_names_the_variable(provider: StubProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing variable before any request is made."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NonRetryableError, match="Set GEMINI_API_KEY") as raised:
        run(worker_of(model="gemini/gemini-2.5-flash"), text="x")
    assert raised.value.clean


def test_a_model_without_a_name_is_refused(provider: StubProvider) -> None:
    """DSPy's refusal of a model's name becomes a configuration error."""
    with pytest.raises(NonRetryableError, match="'openai/' is refused") as raised:
        run(worker_of(model="openai/"), text="x")
    assert raised.value.clean
