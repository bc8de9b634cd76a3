"""What do the monitors see while sagas run?

    python -m examples.monitoring_example

An asyncio program that does its own steps: bus, workers and orchestrator in one process.  The bus
sends every event to the event monitor, the workers report every attempt to the worker monitor, and
the log is structured.  One worker fails at its first attempt, to show a failure.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from multiagents import (
    Context,
    Orchestrator,
    RedisEventBus,
    WorkerExecutionError,
    WorkerManager,
    WorkflowBuilder,
    worker,
)
from multiagents.monitoring import EventMonitor, MonitoringConfig, WorkerMonitor
from multiagents.testing.sandbox import sandbox

TEXTS = ("one", "three", "fifteen")
TIMEOUT_S = 30.0


@worker("measure_text")
async def measure_text(context: Context) -> dict[str, Any]:
    """How long the text is."""
    return {"length": len(context["text"])}


@worker("store_length", retry={"max_attempts": 3, "backoff_s": 0.1})
def store_length(context: Context) -> dict[str, Any]:
    """Fails at its first attempt, as a busy database would."""
    if context.attempt == 1:
        raise WorkerExecutionError("the database is busy")
    return {"stored": context["length"]}


measuring = (
    WorkflowBuilder("measuring")
    .add_step("measure", "measure_text")
    .add_step("store", "store_length")
    .build()
)


async def main() -> None:
    """Run three sagas and print the counts."""
    with sandbox(worker=False, stub=False), tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "multiagents.log"
        config = MonitoringConfig.model_validate(
            {"logging": {"default_logger": "file", "file_path": log}}
        )
        logger = config.create_logger()
        events, attempts = EventMonitor(logger=logger), WorkerMonitor(logger=logger)
        bus = RedisEventBus(event_monitor=events, logger=logger)
        manager = WorkerManager(bus, worker_monitor=attempts, logger=logger)
        manager.register(measure_text)
        manager.register(store_length)
        async with bus, manager, Orchestrator(measuring, bus) as orchestrator:
            await run_sagas(bus, orchestrator)
        report(events, attempts, log)


async def run_sagas(bus: RedisEventBus, orchestrator: Orchestrator) -> None:
    """Start all, then wait until the bus has reported the end of each."""
    completed: asyncio.Queue[str] = asyncio.Queue()

    async def on_status(event: Any) -> None:
        if event.state == "completed":
            await completed.put(event.transaction_id)

    await bus.subscribe("status", on_status)
    running = {await orchestrator.execute_workflow("measuring", {"text": text}) for text in TEXTS}
    async with asyncio.timeout(TIMEOUT_S):
        while running:
            running.discard(await completed.get())  # an event may come twice
    for saga in reversed(await orchestrator.list(workflow="measuring", limit=len(TEXTS))):
        status = await orchestrator.get_status(saga["transaction_id"])
        print(f"{status['input']['text']}: {status['state']}, {status['result']}")


def report(events: EventMonitor, attempts: WorkerMonitor, log: Path) -> None:
    """Print the numbers of this process."""
    print("workers:")
    for name, stats in attempts.get_all_stats().items():
        print(
            f"  {name}: {stats['started']} attempts, {stats['succeeded']} succeeded,"
            f" {stats['failed']} failed {stats['errors']}, {stats['health']}"
        )
    print("events, by type and stage:")
    for kind, measures in events.get_metrics()["by_type"].items():
        reached = {stage: count for stage, count in measures["stages"].items() if count}
        print(f"  {kind}: {reached}")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    failures = [line for line in lines if line["event"] == "worker failed"]
    print(f"log: {len(failures)} lines 'worker failed', the last of step {failures[-1]['step']!r}")


if __name__ == "__main__":
    asyncio.run(main())
