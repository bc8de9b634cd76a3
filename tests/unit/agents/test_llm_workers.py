"""What does a worker do whose result is a model's answer?

Every model call goes over real HTTP to the stub provider.
"""

from __future__ import annotations

import asyncio
import enum
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from multiagents import dspy_worker, retry, timeout
from multiagents.core.exceptions import InvalidInput, NonRetryableError
from multiagents.testing.stub_lm import StubProvider
from multiagents.worker_sdk import registry
from multiagents.worker_sdk.context import Context
from tests.support.llm import asked, run, worker_of

MOOD = "text -> sentiment: str, confidence: float"


class Issue(BaseModel):
    """A class that a signature's text names."""

    title: str
    urgency: Literal["low", "high"]


class Colour(enum.Enum):
    """Another."""

    RED = "red"
    BLUE = "blue"


def test_a_model_answers_and_the_function_adds_to_the_answer(provider: StubProvider) -> None:
    """The function gets the model's answer in the context and adds to it."""

    @dspy_worker("text_classifier", signature=MOOD)
    async def classify_text(context: dict[str, Any]) -> dict[str, Any]:
        return {"needs_review": context.get("confidence", 0) < 0.7}

    provider.script({"sentiment": "negative", "confidence": 0.4})
    assert run(classify_text, text="It broke again.") == {
        "sentiment": "negative",
        "confidence": 0.4,
        "needs_review": True,
    }
    assert "It broke again." in asked(provider)


def test_a_function_supplies_the_inputs_that_the_context_lacks(provider: StubProvider) -> None:
    """If an input is missing, the function runs first; its other results are kept."""
    import dspy

    class WorkerSignature(dspy.Signature):  # type: ignore[misc]  # dspy has no types
        """Define structured input/output for LLM."""

        input_field = dspy.InputField(desc="Input description")
        output_field = dspy.OutputField(desc="Output description")

    @dspy_worker("llm_worker", signature=WorkerSignature)
    async def llm_worker(context: dict[str, Any]) -> dict[str, Any]:
        return {"input_field": context.get("input"), "processing_type": "llm_analysis"}

    @llm_worker.post_process
    async def validate_llm_output(
        dspy_result: dict[str, Any], original_context: dict[str, Any]
    ) -> dict[str, Any]:
        return {**dspy_result, "of": original_context["input"], "at": "now"}

    provider.script({"output_field": "done"})
    assert run(llm_worker, input="raw data") == {
        "output_field": "done",
        "processing_type": "llm_analysis",
        "of": "raw data",
        "at": "now",
    }
    assert "[[ ## input_field ## ]]\nraw data" in asked(provider)


def test_a_chain_of_thought_keeps_its_reasoning(provider: StubProvider) -> None:
    """The result holds the reasoning, and lists stay lists."""

    @dspy_worker(
        "summarizer",
        signature="document -> summary: str, key_points: list[str]",
        reasoning="chain_of_thought",
    )
    async def summarize_document(context: dict[str, Any]) -> dict[str, Any]:
        return {"word_count": len(context.get("summary", "").split())}

    provider.script({"summary": "two words", "key_points": ["a", "b"], "reasoning": "because"})
    result = run(summarize_document, document="long")
    assert result == {
        "reasoning": "because",
        "summary": "two words",
        "key_points": ["a", "b"],
        "word_count": 2,
    }


def test_outputs_have_the_types_of_the_signature(provider: StubProvider) -> None:
    """Numbers, lists, choices and the module's own classes arrive as JSON values of their kind."""
    worker = worker_of(
        lambda context: None,
        signature="mail -> issue: Issue, colour: Colour, days: int, sure: bool,"
        " tags: list[str], counts: dict[str, int], when: Optional[float]",
    )
    provider.script({"colour": "blue", "counts": {"a": 1}, "when": 2.5})
    result = run(worker, mail="Help")
    assert result["issue"]["urgency"] == "low"
    assert result["colour"] == "blue"
    assert (type(result["days"]), result["sure"]) == (int, True)
    assert [type(tag) for tag in result["tags"]] == [str, str]
    assert (result["counts"], result["when"]) == ({"a": 1}, 2.5)


def test_a_plain_function_works_like_an_async_one(provider: StubProvider) -> None:
    """A plain function runs in a thread beside the loop and sees the context's attributes."""
    threads = []

    def finish(context: Context) -> dict[str, Any]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            threads.append(asyncio.get_running_loop())
        return {"step": context.step, "attempt": context.attempt}

    worker = worker_of(finish)
    worker.post_process(lambda result, context: {**result, "keys": sorted(context)})
    result = asyncio.run(worker(Context({"text": "x"}, step="classify", attempt=2)))
    assert (result["step"], result["attempt"]) == ("classify", 2)
    assert result["keys"] == ["text"]


def test_a_missing_input_is_named(provider: StubProvider) -> None:
    """The error names an input that context and function both lack; the model is not called."""
    worker = worker_of(signature="order, mood -> reply")
    with pytest.raises(NonRetryableError, match="lacks the input field 'mood'") as raised:
        run(worker, order="A1")
    assert not raised.value.clean  # the function was called
    assert provider.requests == []


def test_a_missing_input_before_anything_was_called_is_clean(provider: StubProvider) -> None:
    """The attempt counts as clean, because the function runs after the model."""
    worker = worker_of(signature="order, mood -> reply", function_first=False)
    with pytest.raises(NonRetryableError, match="lacks the input fields 'order', 'mood'") as raised:
        run(worker)
    assert raised.value.clean


def test_an_input_with_a_default_may_be_missing(provider: StubProvider) -> None:
    """A missing input with a default does not make the function run first."""
    import dspy

    class Reply(dspy.Signature):  # type: ignore[misc]  # dspy has no types
        """Write a reply."""

        mail: str = dspy.InputField()
        tone: str = dspy.InputField(default="friendly")
        reply: str = dspy.OutputField()

    worker = worker_of(lambda context: {"seen": "reply" in context}, signature=Reply)
    assert run(worker, mail="Hi")["seen"] is True
    assert "[[ ## tone ## ]]\nfriendly" in asked(provider)


def test_function_first_prepares_an_input_that_the_context_has(provider: StubProvider) -> None:
    """With function_first the model gets the text that the function prepared."""
    worker = worker_of(lambda context: {"text": context["text"].strip()}, function_first=True)
    run(worker, text="  spaces  ")
    assert "[[ ## text ## ]]\nspaces\n" in asked(provider)


def test_a_prepared_input_is_never_lost_silently(provider: StubProvider) -> None:
    """Without function_first the model got the raw text; an error says how to declare it."""
    worker = worker_of(lambda context: {"text": context["text"].strip()})
    with pytest.raises(NonRetryableError, match="function_first=True"):
        run(worker, text="  spaces  ")


def test_a_function_must_return_a_dict(provider: StubProvider) -> None:
    """A result that cannot be merged is refused, and the error names it."""
    with pytest.raises(NonRetryableError, match="returned str; expected a dict"):
        run(worker_of(lambda context: "done"), text="x")


def test_dates_become_text(provider: StubProvider) -> None:
    """A time in the model's answer is stored as ISO 8601 text."""
    worker = worker_of(signature="text -> due: datetime.datetime")
    result = run(worker, text="x")
    assert datetime.fromisoformat(result["due"]) == datetime(2025, 1, 31, 12, tzinfo=UTC)


def test_it_is_a_worker_like_any(provider: StubProvider) -> None:
    """The registry, the llm queue, @retry and @timeout treat it like any worker."""

    @timeout(40)
    @dspy_worker("marked", signature=MOOD, queue="gpu")
    @retry(max_attempts=7)
    async def marked(context: dict[str, Any]) -> dict[str, Any]:
        """Says how it sounds."""
        return {}

    assert registry.find("marked") is marked
    assert (marked.is_async, marked.kind, marked.home_queue) == (True, "llm", "gpu")
    assert worker_of().home_queue == "llm"
    assert marked.retry is not None
    assert (marked.retry.max_attempts, marked.timeout_s) == (7, 40)
    assert marked.__doc__ == "Says how it sounds."
    assert asyncio.run(marked.plain({})) == {}


def test_many_steps_ask_at_once(provider: StubProvider) -> None:
    """Ten steps on one loop call the model at the same time."""
    provider.delay(0.2)
    worker = worker_of()

    async def ten() -> float:
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(*(worker({"text": str(number)}) for number in range(10)))
        return asyncio.get_running_loop().time() - begun

    worker.check()
    assert asyncio.run(ten()) < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reasoning": "guess"}, "unknown reasoning 'guess'; expected one of: predict"),
        ({"tools": [str.upper]}, 'set reasoning="react"'),
        ({"tools": [run, run], "reasoning": "react"}, "tools of one name: run"),
        ({"reasoning": "react", "max_iters": 0}, "max_iters=0"),
        ({"lm_settings": {"num_retries": 3}}, "sets num_retries"),
        ({"lm_settings": {"cache": True}}, "sets cache"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_written(
    options: dict[str, Any], message: str
) -> None:
    """An error names each mistake and its fix before anything runs."""
    with pytest.raises(InvalidInput, match=message):
        worker_of(**options)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("no arrow", "cannot be read"),
        ("text -> answer: Unheard", "cannot be read: Unknown name: Unheard"),
        ("config -> answer", "input field 'config', a name that DSPy keeps"),
        (7, "expected a dspy.Signature class"),
    ],
)
def test_a_bad_signature_is_refused_by_check_and_cleanly_at_a_run(
    provider: StubProvider, signature: Any, message: str
) -> None:
    """`check` reads the signature at once; a run reads it before it does anything."""
    worker = worker_of(signature=signature)
    with pytest.raises(InvalidInput, match=message):
        worker.check()
    with pytest.raises(NonRetryableError, match=message) as raised:
        run(worker, text="x", config="y")
    assert raised.value.clean
