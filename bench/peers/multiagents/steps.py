"""Which steps and workflows does the multiagents peer run?"""

from __future__ import annotations

from typing import Any

from bench.harness import work
from multiagents import WorkflowBuilder, worker


@worker("bench_noop")
def noop(context: dict[str, Any]) -> dict[str, int]:
    """One step."""
    return work()


def chain(length: int) -> None:
    """Register a workflow with a chain of steps."""
    builder = WorkflowBuilder(f"bench_chain{length}")
    for number in range(length):
        builder.add_step(f"s{number}", "bench_noop")
    builder.build().register()


def fan(width: int) -> None:
    """Register a workflow with steps at the same time, then one."""
    builder = WorkflowBuilder(f"bench_fanout{width}")
    builder.parallel([(f"p{number}", "bench_noop") for number in range(width)])
    builder.add_step("join", "bench_noop")
    builder.build().register()


chain(10)
chain(100)
fan(10)
