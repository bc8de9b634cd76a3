"""Which workflow do the tests of `explain` use?"""

from __future__ import annotations

from typing import Any

from multiagents import WorkflowBuilder, worker
from multiagents.workflows.workflow import Workflow


@worker("explain.do")
def do(context: Any) -> dict[str, Any]:
    return {}


@worker("explain.think", queue="llm")
def think(context: Any) -> dict[str, Any]:
    return {}


def two(**options: Any) -> Workflow:
    """A step with undo, and one that calls a language model."""
    return (
        WorkflowBuilder("explain-two", **options)
        .add_step("reserve", "explain.do", compensation="explain.do")
        .add_step("summarize", "explain.think")
        .build()
    )
