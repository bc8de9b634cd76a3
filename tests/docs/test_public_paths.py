"""Does every import path that users rely on still work?"""

from __future__ import annotations

from importlib import import_module

import pytest

PUBLIC = {
    "multiagents": ("Orchestrator", "RedisEventBus", "WorkerManager", "WorkflowBuilder", "attach"),
    "multiagents.core.exceptions": ("WorkerExecutionError",),
    "multiagents.core.factory": ("create_simple_framework",),
    "multiagents.event_bus.redis_bus": ("RedisEventBus",),
    "multiagents.event_bus.transport": (
        "SentinelSteadyTransport",
        "SentinelWorkerTransport",
        "SteadyTransport",
        "WorkerTransport",
    ),
    "multiagents.monitoring": ("EventMonitor", "MonitoringConfig", "StepFilter", "WorkerMonitor"),
    "multiagents.orchestrator.definitions": ("load_definition", "load_file"),
    "multiagents.orchestrator.workflow": ("Step", "Workflow", "WorkflowBuilder", "task"),
    "multiagents.testing.lab": ("eager",),
    "multiagents.testing.provider": ("StubProvider",),
    "multiagents.testing.sandbox": ("sandbox",),
}
"""The paths of README, docs, the examples and the seed documents."""


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_path_gives_its_names(module: str) -> None:
    """A module may move to another room, but the users' import path stays."""
    loaded = import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(loaded, name)] == []
