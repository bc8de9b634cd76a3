"""How do I define, start and await a workflow?

    python -m examples.simple_workflow

Three steps, one after the other; each gets the input and the results before it.
"""

from __future__ import annotations

import asyncio

import multiagents
from multiagents import SagaFailed, WorkflowBuilder
from multiagents.testing.sandbox import sandbox

readings = (
    WorkflowBuilder("readings", description="Average some readings and report them")
    .add_step("check", "check_readings")
    .add_step("average", "average_readings")
    .add_step("report", "file_report")
    .build()
    .register()
)


async def main() -> None:
    """Run it twice: once with readings, once without any."""
    with sandbox(imports=["workers.io", "workers.cpu"], stub=False):
        result = multiagents.start_saga.delay("readings", {"readings": [19.5, 21.0, 22.5]})
        print(f"result: {result.get(timeout=30)}")

        saga = multiagents.sagas.get(result.id)
        for name, step in saga["steps"].items():
            print(f"  {name}: {step['state']}, {saga['step_results'][name]}")

        result = multiagents.start_saga.delay("readings", {"readings": []})
        try:
            result.get(timeout=30)
        except SagaFailed as error:
            print(f"without readings: {error.state} at {error.step!r}: {error.error['message']}")


if __name__ == "__main__":
    asyncio.run(main())
