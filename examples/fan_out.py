"""How do steps run at the same time, and how does one step join them?

    python -m examples.fan_out

Three branches read one text; the step added after them joins their results.
"""

from __future__ import annotations

import asyncio

import multiagents
from multiagents import WorkflowBuilder
from multiagents.testing.sandbox import sandbox

TEXT = (
    "A saga is a chain of steps. When a step fails, the steps before it are undone."
    " The order of undoing is the reverse of the order of doing."
)

review = (
    WorkflowBuilder("review", description="Read a text in three ways at once")
    .parallel(
        [
            ("words", "count_words"),
            ("keywords", "find_keywords"),
            ("readability", "score_readability"),
        ]
    )
    .add_step("review", "write_review")
    .build()
    .register()
)


async def main() -> None:
    """Run it once and show the result of each branch."""
    with sandbox(imports=["workers.io", "workers.cpu"], stub=False):
        result = multiagents.start_saga.delay("review", {"text": TEXT})
        outcome = result.get(timeout=30)
        branches = multiagents.sagas.get(result.id)["step_results"]
        for name in ("words", "keywords", "readability"):
            print(f"branch {name}: {branches[name]}")
        print(f"joined: {outcome['review']}")


if __name__ == "__main__":
    asyncio.run(main())
