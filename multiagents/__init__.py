"""Durable sagas for AI agents on the Celery and Redis you already run.

All public names are importable from here.  Each name is loaded on first use, so that
``import multiagents`` is fast (dspy and rich are loaded only when they are needed).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from multiagents.agents.dspy_worker import dspy_worker
    from multiagents.agents.tools import tool
    from multiagents.core.exceptions import (
        CircuitBreakerOpenError,
        DamagedSaga,
        IdempotencyConflict,
        InvalidInput,
        InvalidResult,
        InvalidWorkflow,
        MultiAgentsError,
        NewerFormat,
        NonRetryableError,
        NoServer,
        NotAllowed,
        NotWritable,
        SagaFailed,
        StepTimeout,
        UnknownSaga,
        UnknownWorker,
        UnknownWorkflow,
        WorkerExecutionError,
    )
    from multiagents.core.policies import RetryPolicy
    from multiagents.core.settings import Settings
    from multiagents.core.states import WorkflowState
    from multiagents.event_bus.redis_bus import RedisEventBus
    from multiagents.hosting.runtime import app, attach, register, sagas, start_saga
    from multiagents.hosting.runtime import app as celery
    from multiagents.orchestrator.manager import WorkerManager
    from multiagents.orchestrator.orchestrator import Orchestrator
    from multiagents.worker_sdk.breaker import CircuitBreaker, circuit_breaker
    from multiagents.worker_sdk.context import Context
    from multiagents.worker_sdk.decorators import (
        monitor_performance,
        retry,
        timeout,
        worker,
    )
    from multiagents.workflows.builder import WorkflowBuilder, task
    from multiagents.workflows.step import Step
    from multiagents.workflows.workflow import Workflow

_HOME = {
    "hosting.runtime": (
        "app",
        "attach",
        "register",
        "sagas",
        "start_saga",
    ),
    "core.exceptions": (
        "CircuitBreakerOpenError",
        "DamagedSaga",
        "IdempotencyConflict",
        "InvalidInput",
        "InvalidResult",
        "InvalidWorkflow",
        "MultiAgentsError",
        "NewerFormat",
        "NoServer",
        "NonRetryableError",
        "NotAllowed",
        "NotWritable",
        "SagaFailed",
        "StepTimeout",
        "UnknownSaga",
        "UnknownWorker",
        "UnknownWorkflow",
        "WorkerExecutionError",
    ),
    "core.policies": ("RetryPolicy",),
    "core.settings": ("Settings",),
    "core.states": ("WorkflowState",),
    "event_bus.redis_bus": ("RedisEventBus",),
    "orchestrator.orchestrator": ("Orchestrator",),
    "workflows.builder": ("WorkflowBuilder", "task"),
    "workflows.workflow": ("Step", "Workflow"),
    "worker_sdk.breaker": ("CircuitBreaker", "circuit_breaker"),
    "worker_sdk.context": ("Context",),
    "worker_sdk.decorators": ("monitor_performance", "retry", "timeout", "worker"),
    "agents.dspy_worker": ("dspy_worker",),
    "orchestrator.manager": ("WorkerManager",),
    "agents.tools": ("tool",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerOpenError",
    "Context",
    "DamagedSaga",
    "IdempotencyConflict",
    "InvalidInput",
    "InvalidResult",
    "InvalidWorkflow",
    "MultiAgentsError",
    "NewerFormat",
    "NoServer",
    "NonRetryableError",
    "NotAllowed",
    "NotWritable",
    "Orchestrator",
    "RedisEventBus",
    "RetryPolicy",
    "SagaFailed",
    "Settings",
    "Step",
    "StepTimeout",
    "UnknownSaga",
    "UnknownWorker",
    "UnknownWorkflow",
    "WorkerExecutionError",
    "WorkerManager",
    "Workflow",
    "WorkflowBuilder",
    "WorkflowState",
    "__version__",
    "app",
    "attach",
    "celery",
    "circuit_breaker",
    "dspy_worker",
    "monitor_performance",
    "register",
    "retry",
    "sagas",
    "start_saga",
    "task",
    "timeout",
    "tool",
    "worker",
]


def __getattr__(name: str) -> Any:
    if name == "celery":  # what ``celery -A multiagents`` looks for after ``app``
        return __getattr__("app")
    if name not in _MODULE:
        raise AttributeError(f"module 'multiagents' has no attribute {name!r}")
    value = getattr(import_module(f"multiagents.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
