"""Does a busy worker outlive a restart of its broker, on pools on which Celery's own does not?

`test_kill_server` shows it of the package's own app under prefork.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from multiagents import WorkflowBuilder
from multiagents.storage.server import EmbeddedServer
from tests.processes import Worker, wait_for
from tests.support.celery_rig import STEADY, TEAM, CeleryRig, after_work, plain
from tests.support.kill_rig import second_starts

pytestmark = pytest.mark.processes

CONNECTED = "Connected to "
DEADLINE_S = 30.0
VISIBILITY_S = 3
"""After which kombu delivers again what a worker held when its connection broke."""
TEAMS = {
    "broker_transport": STEADY,
    "broker_transport_options": {
        "visibility_timeout": VISIBILITY_S,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    "worker_prefetch_multiplier": 8,
}


def worker_of(rig: CeleryRig, app: str, pool: str) -> Worker:
    """A worker with two slots that fetches all there is."""
    if app == "team":
        return rig.team("-P", pool, "-c", "2", conf=TEAMS)
    return rig.worker("-P", pool, "-c", "2", "-Q", f"{TEAM},io", "--prefetch-multiplier", "8")


@pytest.mark.parametrize(
    ("app", "pool"), [("own", "threads"), ("team", "prefork"), ("team", "threads")]
)
def test_a_busy_worker_outlives_a_restart_of_its_broker(
    tmp_path: Path, app: str, pool: str
) -> None:
    """Both slots are at work and messages are held; nothing ends, is lost or is done twice."""
    gated = WorkflowBuilder("gated").add_step("one", "kp_gate", queue=TEAM).build()
    with EmbeddedServer(tmp_path / "server", appendfsync="always") as server:
        rig = CeleryRig(server.url, 0, tmp_path)
        with worker_of(rig, app, pool) as worker:
            worker.wait_ready()
            busy = [rig.begin(gated, gates={"1": "up"}) for _ in range(2)]
            for saga_id in busy:
                rig.wait_effect(saga_id, "run", step="one")
            held = [rig.begin(gated) for _ in range(2)]
            if app == "team":
                held.append(rig.begin(after_work(plain("work"))))
            every = len(busy + held)
            wait_for(lambda: worker.log.count(" received") == every, DEADLINE_S, "all messages")
            server.kill()
            wait_for(lambda: "Connection to broker lost" in worker.log, DEADLINE_S, "the loss")
            server.restart()
            wait_for(lambda: worker.log.count(CONNECTED) > 1, DEADLINE_S, "the connection")
            rig.open("up")
            ends = [rig.wait_settled(saga_id, DEADLINE_S)["state"] for saga_id in busy + held]
            assert worker.process.poll() is None
            assert [fault for one in busy + held for fault in second_starts(rig, one)] == []
        rig.close()
    assert set(ends) == {"completed"}
