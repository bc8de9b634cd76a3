"""How do the tests of Celery's failures start a team's worker, and judge it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from multiagents import Workflow, WorkflowBuilder, task
from tests.support.kill_rig import QUIET, Rig, second_starts
from tests.support.processes import Worker, wait_for

TEAM = "team"
"""The queue of the team's own tasks."""
QUICK = {"max_attempts": 2, "backoff_s": 0.05, "jitter": False}
STEADY = "multiagents.transport.kombu_redis:SteadyTransport"
SENTINEL_STEADY = "multiagents.transport.kombu_redis:SentinelSteadyTransport"
LONG_S = 60.0
"""A timeout that no test waits for."""
DEADLINE_S = 30.0
CONNECTED = "Connected to "
"""Celery logs this line once it has reached the broker."""
VISIBILITY_S = 3
"""The time until kombu redelivers messages that a broken connection held."""
BUSY_TEAM = {
    "broker_transport": STEADY,
    "broker_transport_options": {
        "visibility_timeout": VISIBILITY_S,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    "worker_prefetch_multiplier": 8,
}


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
        """Start a saga with its own tag, under an optional id; returns the id."""
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
    """A plain step ``a`` that succeeds, and a step ``b``; plain tasks undo both."""
    return (
        WorkflowBuilder(f"after_work_{uuid4().hex[:8]}")
        .add_step("a", plain("work"), compensation=plain("undo"))
        .add_step("b", target, compensation=plain("undo"), **{"retry": QUICK, **options})
        .build()
    )


def failures(rig: CeleryRig, saga_id: str, step: str = "b") -> list[tuple[str, int | None]]:
    """The errors of a step's attempts, in order."""
    ends = ("step_failed", "step_lost", "step_unroutable")
    return [
        (kind.removeprefix("step_"), attempt)
        for kind, name, attempt in rig.events(saga_id)
        if kind in ends and name == step
    ]


def ended(rig: CeleryRig, saga_id: str, error: str, *, step: str | None = "b") -> dict[str, Any]:
    """The settled saga, compensated because of that step's error, and undone once."""
    saga = rig.wait_settled(saga_id)
    assert (saga["state"], saga["error"]["type"]) == ("compensated", error)
    assert saga["error"]["step"] == step
    assert saga["steps"]["a"]["compensation"]["attempts"] == 1
    assert second_starts(rig, saga_id) == []
    return saga


def busy_worker(rig: CeleryRig, app: str, pool: str) -> Worker:
    """A worker with two slots that prefetches everything, of the package's app or a team's."""
    if app == "team":
        return rig.team("-P", pool, "-c", "2", conf=BUSY_TEAM)
    return rig.worker("-P", pool, "-c", "2", "-Q", f"{TEAM},io", "--prefetch-multiplier", "8")


def fill(rig: CeleryRig, worker: Worker, app: str) -> list[str]:
    """Sagas that hold a worker's two slots until the gate ``up`` opens, and some that wait."""
    gated = WorkflowBuilder("gated").add_step("one", "kp_gate", queue=TEAM).build()
    busy = [rig.begin(gated, gates={"1": "up"}) for _ in range(2)]
    for saga_id in busy:
        rig.wait_effect(saga_id, "run", step="one")
    held = [rig.begin(gated) for _ in range(2)]
    if app == "team":
        held.append(rig.begin(after_work(plain("work"))))
    every = [*busy, *held]
    wait_for(lambda: worker.log.count(" received") == len(every), DEADLINE_S, "all messages")
    return every


def assert_completed_once(rig: CeleryRig, worker: Worker, saga_ids: list[str]) -> None:
    """Assert that each saga completed, no step started twice, and the worker still runs."""
    ends = [rig.wait_settled(saga_id, DEADLINE_S)["state"] for saga_id in saga_ids]
    assert set(ends) == {"completed"}
    assert worker.process.poll() is None
    assert [fault for one in saga_ids for fault in second_starts(rig, one)] == []
