"""How does a language model run a step?

A signature names the fields that the model reads from the context and those it answers with. The
function finds the answer in the context and adds its own result.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from multiagents import Orchestrator, WorkerManager, WorkflowBuilder, dspy_worker, tool, worker
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.testing.stub_lm import StubProvider
from tests.guide.following import run_to_the_end

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def answer_letter() -> Any:
    """A worker with a class as its signature, which needs dspy: two seconds to import."""
    import dspy

    class Reply(dspy.Signature):  # type: ignore[misc]  # dspy has no types
        """Answer a customer's letter."""

        letter = dspy.InputField(desc="What the customer wrote")
        reply = dspy.OutputField(desc="A friendly answer")

    @dspy_worker("guide.answer_letter", signature=Reply)
    async def answer_letter(context: dict[str, Any]) -> dict[str, Any]:
        return {"written_by": "model"}

    @answer_letter.post_process
    async def sign(answer: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
        """Check the model's words and complete them; the input is there to compare with."""
        answer["reply"] = (
            f"{answer['reply'].strip()} To your letter of {len(context['letter'])} signs."
        )
        return answer

    return answer_letter


@dspy_worker("guide.classify_mood", signature="letter -> mood: str, confidence: float")
async def classify_mood(context: dict[str, Any]) -> dict[str, Any]:
    return {"needs_review": context.get("confidence", 0) < 0.7}


@dspy_worker(
    "guide.summarize_letter",
    signature="letter -> summary: str, key_points: list[str]",
    reasoning="chain_of_thought",
)
async def summarize_letter(context: dict[str, Any]) -> dict[str, Any]:
    return {"word_count": len(context.get("summary", "").split())}


@tool("guide_find_order")
async def find_order(customer: str) -> list[str]:
    """Find the orders of a customer."""
    return [f"a lamp for {customer}"]


@tool("guide_count_stock")
def count_stock(item: str) -> int:
    """Count what is left of an item."""
    return 5


@dspy_worker(
    "guide.research_letter",
    signature="letter -> findings: str, sources: list[str]",
    tools=[find_order, count_stock],
    reasoning="react",
    max_iters=3,
)
async def research_letter(context: dict[str, Any]) -> dict[str, Any]:
    return {"source_count": len(context.get("sources", [])), "research_complete": True}


@worker("guide.file_letter")
async def file_letter(context: dict[str, Any]) -> dict[str, Any]:
    """An ordinary step among those of the model."""
    return {"filed_under": context["mood"]}


def run_workflow(workflow: Any, *functions: Any) -> dict[str, Any]:
    """The last status of a saga over one letter."""

    async def program():
        event_bus = RedisEventBus()
        worker_manager = WorkerManager(event_bus)
        for function in functions:
            worker_manager.register(function)
        orchestrator = Orchestrator(workflow, event_bus)
        async with event_bus, worker_manager, orchestrator:
            letter = {"letter": "My lamp is broken."}
            return await run_to_the_end(orchestrator, workflow.name, letter)

    return asyncio.run(program())


def test_steps_of_a_model_and_of_code_make_one_saga(provider: StubProvider, answer_letter: Any):
    """The model's workers use the queue ``llm``, the others ``io``; one manager runs both."""
    provider.script({"mood": "angry", "confidence": 0.6})
    provider.script({"reply": "We are sorry. "})
    workflow = (
        WorkflowBuilder("guide-letter")
        .add_step("classify", "guide.classify_mood")
        .add_step("file", "guide.file_letter")
        .add_step("answer", "guide.answer_letter")
        .build()
    )
    status = run_workflow(workflow, classify_mood, file_letter, answer_letter)
    assert status["state"] == "completed"
    assert status["step_results"]["classify"] == {
        "mood": "angry",
        "confidence": 0.6,
        "needs_review": True,
    }
    assert status["step_results"]["file"] == {"filed_under": "angry"}
    assert status["result"]["reply"] == "We are sorry. To your letter of 18 signs."
    assert status["result"]["written_by"] == "model"


def test_a_model_may_reason_first(provider: StubProvider):
    """``chain_of_thought`` requests the reasoning beside the fields."""
    provider.script(
        {"reasoning": "it is short", "summary": "A lamp broke.", "key_points": ["lamp"]}
    )
    workflow = WorkflowBuilder("guide-summary").add_step("sum", summarize_letter).build()
    result = run_workflow(workflow, summarize_letter)["result"]
    assert (result["summary"], result["key_points"]) == ("A lamp broke.", ["lamp"])
    assert result["word_count"] == 3


def test_a_model_may_use_tools(provider: StubProvider):
    """``react`` lets the model call tools a few times before it answers."""
    provider.script({"findings": "one lamp", "sources": ["orders"]})
    workflow = WorkflowBuilder("guide-research").add_step("look", research_letter).build()
    status = run_workflow(workflow, research_letter)
    assert status["state"] == "completed"
    assert status["result"]["findings"] == "one lamp"
    assert status["result"]["source_count"] == 1
