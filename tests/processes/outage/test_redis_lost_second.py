"""What does a user see when a server comes back without what it confirmed last?

As after a crash of its host with ``appendfsync everysec``, a fail-over to a replica that lagged
behind, or a snapshot that was restored: what the engine can notice it says, and repairs nothing by
guessing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from multiagents.core.exceptions import UnknownSaga
from multiagents.devserver.server import EmbeddedServer
from tests.support.command_line import cli
from tests.support.kill_rig import Rig
from tests.support.processes import Worker, wait_for

pytestmark = pytest.mark.processes

FILES = "appendonlydir"
GONE = "a step has ended, but its saga is gone"


@dataclass
class Lost:
    """A server that has forgotten what came after ``older`` began to wait, and what runs on it."""

    rig: Rig
    worker: Worker
    older: str
    """Recorded before the copy; its first step was claimed after it."""
    newer: Any
    """The result of a saga that was started after the copy; its first step is running."""


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lost]:
    """Both sagas have a step at work that the server knows nothing of; then the gate opens."""
    folder = tmp_path_factory.mktemp("lost")
    with EmbeddedServer(folder / "server", appendfsync="always") as server:
        rig = Rig(server.url, 0, folder)
        older = rig.start("kp_paced", gates={"1": "up"})
        shutil.copytree(folder / "server" / FILES, folder / "copy")
        with rig.worker("-c", "4") as worker:
            newer = rig.runtime.start_saga.delay("kp_paced", {"gates": {"1": "up"}})
            for saga_id in (older, newer.id):
                rig.wait_effect(saga_id, "run", step="one")
            server.kill()
            shutil.rmtree(folder / "server" / FILES)
            shutil.copytree(folder / "copy", folder / "server" / FILES)
            server.restart()
            again = [older, older]
            wait_for(lambda: runs(rig, older) == again, 30.0, "the step that runs again")
            rig.open("up")
            yield Lost(rig, worker, older, newer)
        rig.close()


def runs(rig: Rig, saga_id: str) -> list[str]:
    """The saga's id for each time that its first step was begun."""
    return [effect.saga for effect in rig.effects(saga_id, "run") if effect.step == "one"]


def test_a_report_that_the_server_cannot_know_calls_a_person(lost: Lost) -> None:
    """The attempt ran twice: the saga ends, logs the other report and asks for attention."""
    saga = lost.rig.wait_settled(lost.older)
    assert (saga["state"], saga["needs_attention"]) == ("completed", True)
    reported = [e for e in lost.rig.events(lost.older) if e == ("step_succeeded", "one", 1)]
    assert len(reported) == 2
    found = cli("doctor", "--json", url=lost.rig.url).json["checks"]
    attention = next(check for check in found if check["name"] == "attention")
    assert attention["status"] == "warn"
    assert lost.older in attention["message"]


def test_a_saga_that_is_gone_is_told_to_who_started_it(lost: Lost) -> None:
    """Python and the shell raise instead of waiting for ever; the saga is not made anew."""
    with pytest.raises(UnknownSaga, match="started and is gone"):
        lost.newer.get(timeout=30)
    done = cli("watch", lost.newer.id, url=lost.rig.url)
    assert (done.code, done.out) == (2, "")
    assert lost.newer.id in done.err
    assert lost.rig.traces(lost.newer.id) == []


def test_a_step_that_ends_for_a_saga_that_is_gone_is_logged(lost: Lost) -> None:
    """Its effect remains, and only the worker's log names its saga."""
    wait_for(lambda: GONE in lost.worker.log, 20.0, "the log entry")
    line = next(line for line in lost.worker.log.splitlines() if GONE in line)
    assert lost.newer.id in line
    assert "step=one" in line
