"""How does a program get everything at once?

`create_simple_framework` makes a bus, workers and an orchestrator that are connected with each
other, and their monitors.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.monitoring.config import MonitoringConfig
from multiagents.orchestrator.manager import WorkerManager
from multiagents.orchestrator.orchestrator import Orchestrator
from multiagents.workflows.workflow import Workflow


class Framework(NamedTuple):
    """A bus, workers and an orchestrator that are connected; awaiting it gives itself."""

    event_bus: RedisEventBus
    worker_manager: WorkerManager
    orchestrator: Orchestrator

    def __await__(self) -> Generator[None, None, Framework]:
        yield from ()
        return self


def create_simple_framework(workflow: Workflow) -> Framework:
    """All parts that a program needs to run a workflow, with monitors; none is started.

    ``monitoring.yaml`` in the current folder, if there is one, configures the monitors.  Unpack the
    result, awaited or not:
    ``event_bus, worker_manager, orchestrator = create_simple_framework(order)``.
    """
    found = Path("monitoring.yaml")
    config = MonitoringConfig.from_file(found) if found.is_file() else MonitoringConfig()
    logger = config.create_logger()
    bus = RedisEventBus(event_monitor=config.create_event_monitor(logger), logger=logger)
    workers_here = WorkerManager(
        bus, worker_monitor=config.create_worker_monitor(logger), logger=logger
    )
    return Framework(bus, workers_here, Orchestrator(workflow, bus))
