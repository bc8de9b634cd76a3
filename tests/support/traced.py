"""How do tests run a step's message through Celery's own tracer in this process?

The tracer runs as in a worker's child; between two messages a test may look, and act as a second
worker.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.trace import build_tracer

from multiagents.core import ids
from multiagents.core.settings import Settings
from multiagents.hosting.runtime import Runtime, attach
from multiagents.hosting.step_task import WorkerTask
from multiagents.transport.callbacks import errback


class TracedWorker:
    """One worker's app on a store; its messages are those that a test delivers."""

    def __init__(
        self,
        redis_url: str,
        name: str = "traced",
        *,
        task_cls: Any = None,
        conf: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.app = Celery(
            name,
            broker="memory://",
            backend="cache+memory://",
            set_as_current=False,
            task_cls=task_cls,
        )
        self.app.conf.update(conf or {})
        self.runtime: Runtime = attach(self.app, Settings(redis_url=redis_url, **settings))
        self.trace()

    def trace(self) -> None:
        """Make the tracers of its workers' tasks."""
        for task in self.app.tasks.values():
            if isinstance(task, WorkerTask):
                task.__trace__ = build_tracer(task.name, task, app=self.app, loader=self.app.loader)

    def deliver(
        self,
        saga_id: str,
        kind: str,
        step: str,
        task: str,
        attempt: int = 1,
        *,
        headers: dict[str, Any] | None = None,
    ) -> Any:
        """The return value of the task's tracer for an attempt's message."""
        args = [saga_id, kind, step, attempt]
        request = {
            **(headers or {}),
            "id": (task_id := ids.step_id(*args)),
            "task": task,
            "args": args,
            "kwargs": {},
            "errbacks": [errback(args)],
            "callbacks": None,
            "delivery_info": {"routing_key": "io"},
            "ignore_result": True,
            "is_eager": False,
            "hostname": self.app.main,
        }
        return self.app.tasks[task].__trace__(task_id, args, {}, request)

    def close(self) -> None:
        """Close its connections."""
        self.runtime.edge.close()
        self.app.close()
