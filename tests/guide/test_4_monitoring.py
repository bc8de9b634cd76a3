"""How do you watch what happens?

An `EventMonitor` follows every event of the bus, a `WorkerMonitor` counts every attempt, and both
write to the logger that a `MonitoringConfig` makes.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from multiagents import Orchestrator, WorkerManager, WorkflowBuilder, worker
from multiagents.core.events import CommandEvent, ResultEvent
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.monitoring import EventMonitor, MonitoringConfig, WorkerMonitor
from tests.guide.following import run_to_the_end

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

YAML = """
logging:
  default_logger: "file"
  level: "INFO"
  file_path: "./logs/guide.log"

event_monitoring:
  enabled: true
  trace_retention_hours: 24

worker_monitoring:
  enabled: true
  health_check_interval_seconds: 30
"""


@worker("guide.weigh")
async def weigh(context: dict[str, Any]) -> dict[str, Any]:
    if context["grams"] < 0:
        raise ValueError("nothing weighs less than nothing")
    return {"heavy": context["grams"] > 1000}


WEIGHING = WorkflowBuilder("guide-weighing").add_step("weigh", "guide.weigh").build()


class Notebook:
    """An observer that receives every stage of every event."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def on_event_stage(self, event: Any, stage: str) -> None:
        self.lines.append((event.event_type, stage))


def weigh_all(
    *grams: int, logger: Any, event_monitor: EventMonitor, worker_monitor: WorkerMonitor
) -> list[str]:
    """Run a saga for each weight with these monitors; returns the sagas' ids."""

    async def program():
        event_bus = RedisEventBus(event_monitor=event_monitor, logger=logger)
        worker_manager = WorkerManager(event_bus, worker_monitor=worker_monitor, logger=logger)
        orchestrator = Orchestrator(WEIGHING, event_bus)
        worker_manager.register(weigh)
        async with event_bus, worker_manager, orchestrator:
            sagas = [
                await run_to_the_end(orchestrator, "guide-weighing", {"grams": each})
                for each in grams
            ]
        return [saga["transaction_id"] for saga in sagas]

    return asyncio.run(program())


def test_monitors_see_events_and_workers():
    """The monitors follow a command to its completion, with true counts and times."""
    config = MonitoringConfig(
        logging={"default_logger": "file", "level": "INFO"},
        event_monitoring={"enabled": True, "trace_retention_hours": 24},
        worker_monitoring={"enabled": True, "health_check_interval_seconds": 30},
    )
    logger = config.create_logger()
    event_monitor = EventMonitor(logger=logger)
    worker_monitor = WorkerMonitor(logger=logger)
    notebook = Notebook()
    event_monitor.observers.append(notebook)

    first, *_ = weigh_all(
        10, 2000, -1, logger=logger, event_monitor=event_monitor, worker_monitor=worker_monitor
    )

    trace = event_monitor.get_trace(first)
    stages = [entry["stage"] for entry in trace if entry["event_type"] == "command"]
    assert stages == ["dispatched", "published", "picked_up", "processing", "completed"]
    assert {entry["event_type"] for entry in trace} == {"status", "command", "result"}
    assert ("error", "published") in notebook.lines

    stats = worker_monitor.get_worker_stats("guide.weigh")
    assert (stats["started"], stats["succeeded"], stats["failed"]) == (3, 2, 1)
    assert stats["success_rate"] == pytest.approx(2 / 3)
    assert stats["errors"] == {"ValueError": 1}


def test_a_file_configures_it_all():
    """``monitoring.yaml`` makes the same logger; its lines are JSON without contexts."""
    Path("monitoring.yaml").write_text(YAML)
    config = MonitoringConfig.from_file("monitoring.yaml")
    logger = config.create_logger()
    weigh_all(
        -1,
        logger=logger,
        event_monitor=EventMonitor(logger=logger),
        worker_monitor=WorkerMonitor(logger=logger),
    )
    lines = [json.loads(line) for line in Path("logs/guide.log").read_text().splitlines()]
    failed = next(line for line in lines if line["event"] == "worker failed")
    assert (failed["worker_name"], failed["error"]) == ("guide.weigh", "ValueError")
    assert "grams" not in json.dumps(lines)


def test_events_can_be_made_published_and_tracked_by_hand():
    """A manager executes a command, a result answers it, and a monitor follows both."""
    event_monitor = EventMonitor()

    async def program():
        worker_manager = WorkerManager()
        worker_manager.register(weigh)
        command = CommandEvent(
            transaction_id="by-hand", worker_name="guide.weigh", context={"grams": 5}
        )
        async with RedisEventBus(event_monitor=event_monitor) as event_bus:
            await event_bus.publish(command)
            await event_monitor.track_event_lifecycle(command, "picked_up")
            executor = worker_manager.get_worker(command.worker_name)
            result = await executor.execute(command.context)
            await event_monitor.track_event_lifecycle(command, "completed")
            answer = ResultEvent(
                transaction_id=command.transaction_id,
                worker_name=command.worker_name,
                result=result,
            )
            await event_bus.publish(answer)
            return result, await command.execute_via(worker_manager)

    result, again = asyncio.run(program())
    assert result == again == {"heavy": False}
    stages = [entry["stage"] for entry in event_monitor.get_trace("by-hand")]
    assert stages == [
        *("dispatched", "published", "picked_up", "completed"),
        *("dispatched", "published"),
    ]
