"""How do you write and run a first saga?

A worker is a function with a name. A workflow names the workers of its steps. Three objects run it:
an event bus, a worker manager that runs the steps, and an orchestrator that starts sagas.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from multiagents import Orchestrator, WorkerManager, WorkflowBuilder, worker
from multiagents.core.factory import create_simple_framework
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.orchestrator.workflow import WorkflowBuilder as BuilderByItsOtherPath
from tests.guide.following import run_to_the_end

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@worker("guide.count_words")
async def count_words(context: dict[str, Any]) -> dict[str, Any]:
    text = context["text"]
    return {"words": len(text.split()), "counted_at": datetime.now(UTC).isoformat()}


@worker("guide.grade_length")
def grade_length(context: dict[str, Any]) -> dict[str, Any]:
    """A plain function works, too; it gets the results of the steps before."""
    return {"grade": "long" if context["words"] > 3 else "short", "text": context["text"]}


def test_a_worker_is_still_the_function_that_was_written():
    """A unit test calls it like any function, without server or framework."""
    result = asyncio.run(count_words({"text": "one two three"}))
    assert result["words"] == 3


def test_three_objects_run_a_workflow():
    """A program makes and starts bus, workers and orchestrator, runs a saga and stops them."""
    workflow = WorkflowBuilder("guide-counting").add_step("count", "guide.count_words").build()

    async def program():
        event_bus = RedisEventBus()
        worker_manager = WorkerManager(event_bus)
        orchestrator = Orchestrator(workflow, event_bus)

        worker_manager.register(count_words)
        await event_bus.start()
        await worker_manager.start()
        await orchestrator.start()

        status = await run_to_the_end(orchestrator, "guide-counting", {"text": "well done"})

        await worker_manager.stop()
        await orchestrator.stop()
        await event_bus.stop()
        return status

    status = asyncio.run(program())
    assert status["state"] == "completed"
    assert status["workflow"] == "guide-counting"
    assert status["result"]["words"] == 2


def make_workflow():
    return (
        BuilderByItsOtherPath("guide-grading")
        .add_step("count", "guide.count_words")
        .add_step("grade", "guide.grade_length")
        .build()
    )


async def set_up(workflow):
    """All three objects at once, started, with the monitoring of ``monitoring.yaml``."""
    event_bus, worker_manager, orchestrator = await create_simple_framework(workflow)
    await event_bus.start()
    for function in (count_words, grade_length):
        worker_manager.register(function)
    await worker_manager.start()
    await orchestrator.start()
    return event_bus, worker_manager, orchestrator


async def shut_down(event_bus, worker_manager, orchestrator):
    await worker_manager.stop()
    await orchestrator.stop()
    await event_bus.stop()


def test_the_factory_makes_the_three_objects():
    """The next step's context has the earlier results and the input."""

    async def program():
        parts = await set_up(make_workflow())
        try:
            return await run_to_the_end(
                parts[2], "guide-grading", {"text": "a b c d e", "reader": "Ada"}
            )
        finally:
            await shut_down(*parts)

    status = asyncio.run(program())
    assert status["state"] == "completed"
    assert status["result"] == {"grade": "long", "text": "a b c d e"}
    assert list(status["step_results"]) == ["count", "grade"]
    assert status["input"] == {"text": "a b c d e", "reader": "Ada"}


def test_the_factory_may_be_called_without_await():
    """The factory connects to nothing, so it need not wait."""
    event_bus, worker_manager, orchestrator = create_simple_framework(make_workflow())
    assert (worker_manager.event_bus, orchestrator.event_bus) == (event_bus, event_bus)


def test_a_workflow_tells_which_step_comes_next():
    """A loop can walk a definition from None to the first step and on to the last."""
    workflow = make_workflow()
    first = workflow.get_next_step(None)
    assert first is not None
    following = workflow.get_next_step(first.name)
    assert following is not None
    assert (first.name, following.name) == ("count", "grade")
    assert workflow.get_next_step("grade") is None
