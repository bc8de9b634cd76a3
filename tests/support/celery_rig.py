"""How do the tests of Celery's own failures start a team's worker, and judge it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from multiagents import Workflow, WorkflowBuilder, task
from tests.processes import Worker
from tests.support.kill_rig import QUIET, Rig

TEAM = "team"
"""The queue of the team's own tasks."""
QUICK = {"max_attempts": 2, "backoff_s": 0.05, "jitter": False}
STEADY = "multiagents.event_bus.transport:SteadyTransport"
SENTINEL_STEADY = "multiagents.event_bus.transport:SentinelSteadyTransport"
LONG_S = 60.0
"""A time-out that no test waits for."""


class CeleryRig(Rig):
    """A rig whose workers may be those of the team's own app."""

    def team(self, *args: str, conf: dict[str, Any] | None = None, **env: str) -> Worker:
        """A worker of the team's app on its queue and the engine's, not yet started."""
        more = {**self._env, "TEAM_CONF": json.dumps(conf or {}), **env}
        queues = () if "-Q" in args else ("-Q", f"{TEAM},io")
        return Worker(
            self.url,
            *QUIET,
            *queues,
            *args,
            imports="tests.support.kill_workers",
            env=more,
            app="tests.support.celery_team",
        )

    def begin(self, workflow: Workflow, saga_id: str | None = None, **given: Any) -> str:
        """Start a saga with a tag of its own, under an id that may be chosen; return the id."""
        saga_id = saga_id or str(uuid4())
        data = {"tag": saga_id, **given}
        self.runtime.start_saga.apply_async((workflow, data), task_id=saga_id)
        return saga_id

    def runs(self, saga_id: str, name: str) -> list[int]:
        """The processes in which a plain task of a saga ran, in order."""
        path = Path(self.folder) / "plain"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [int(row[2]) for row in rows if row[:2] == [saga_id, name]]


def plain(name: str, **options: Any) -> Any:
    """A task of the team as a step."""
    return task(f"team.{name}", queue=TEAM, **{"timeout_s": LONG_S, **options})


def after_work(target: Any, **options: Any) -> Workflow:
    """A plain step ``a`` that works, and a step ``b``; both are undone by plain tasks."""
    return (
        WorkflowBuilder(f"after_work_{uuid4().hex[:8]}")
        .add_step("a", plain("work"), compensation=plain("undo"))
        .add_step("b", target, compensation=plain("undo"), **{"retry": QUICK, **options})
        .build()
    )
