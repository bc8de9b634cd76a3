"""Does a wide fan-out survive the death of the child that is sending its branches?

One commit sends as many messages as one script may; the scripts that follow send the rest.  By
kombu each message is a call of its own, and a script confirms them by the chunk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from multiagents.orchestrator.dispatch import CHUNK
from multiagents.storage.server import EmbeddedServer
from tests.support.kill_points import Point
from tests.support.kill_rig import Rig, check_recoveries, second_starts
from tests.support.kill_wide import FANNED, branches

pytestmark = pytest.mark.processes

DATABASE = 12
DEADLINE_S = 30.0
FANS = "tests.support.kill_points,tests.support.kill_wide"
KOMBU = f"{FANS},tests.support.kill_kombu"
WAYS = {
    "continuation": ("True", FANS, "advance.1", ["publish.1"]),
    "messages": ("False", FANS, "commit.2", ["publish.1"]),
    "kombu": (
        "True",
        KOMBU,
        "advance.1",
        [f"LPUSH.{CHUNK // 2}", f"LPUSH.{CHUNK}", "publish.1", f"LPUSH.{FANNED}", "publish.2"],
    ),
}
"""Whether steps continue in one process, what a worker imports, the call that decides on the
fan-out and those that follow it."""


@dataclass
class Way:
    """One way in which branches are sent, with a worker that sends them so."""

    name: str
    rig: Rig
    moments: list[tuple[str, str]]
    """When, and at which call, a child dies."""


@pytest.fixture(scope="module", params=WAYS)
def way(
    request: pytest.FixtureRequest, server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Way]:
    """A worker, once its calls are known to be those of its way."""
    name: str = request.param
    continuation, imports, decides, sending = WAYS[name]
    rig = Rig(server.url, DATABASE, tmp_path_factory.mktemp(name))
    with rig.worker(imports=imports, MULTIAGENTS_CONTINUATION=continuation) as worker:
        worker.wait_ready()
        assert faults(rig, undisturbed := rig.start("kp_fans", Point())) == []
        assert {decides, *sending, "settle.1"} <= set(rig.calls(undisturbed))
        moments = [("before", decides), *(("after", call) for call in (decides, *sending))]
        yield Way(name, rig, moments)
    rig.close()


def faults(rig: Rig, saga_id: str) -> list[str]:
    """How a saga of ``kp_fans`` differs from one that nothing happened to; [] is right."""
    saga = rig.wait_settled(saga_id, DEADLINE_S)
    found = [] if saga["state"] == "completed" else [f"state {saga['state']}: {saga['error']}"]
    runs = sorted((effect.step, effect.attempt) for effect in rig.effects(saga_id, "run"))
    wide = [run for run in runs if run[0] not in ("one", "two")]
    if wide != sorted((step, 1) for step, _ in [*branches(FANNED), ("join", "")]):
        found.append(f"branches ran {wide}")
    found += [f"second start of {item}" for item in second_starts(rig, saga_id)]
    succeeded = [str(step) for kind, step, _ in rig.events(saga_id) if kind == "step_succeeded"]
    if sorted(succeeded) != sorted(saga["steps"]):
        found.append(f"the history says that these succeeded: {succeeded}")
    if rig.app.AsyncResult(saga_id).state != "SUCCESS":
        found.append("the outcome was not delivered")
    return found


def die_at(rig: Rig, moments: list[tuple[str, str]]) -> list[float]:
    """One child after another dies; how long each saga then took until nothing was left to do."""
    wrong, took_s = {}, []
    for when, call in moments:
        saga_id = rig.start("kp_fans", Point("child", when, call))
        found = faults(rig, saga_id)
        settled, died = time.time(), rig.killed_at(saga_id)
        if found or died is None:
            wrong[f"{when} {call}"] = found or ["not reached"]
        else:
            took_s.append(settled - died)
    assert wrong == {}
    return took_s


def test_a_fan_out_is_finished_by_a_sweep_and_no_branch_runs_twice(way: Way) -> None:
    """Its child dies around the commit and between the messages: all run, each once."""
    check_recoveries(f"fan-outs, {way.name}", die_at(way.rig, way.moments))


def test_the_log_of_a_wide_saga_survives_a_death_at_its_end(way: Way) -> None:
    """It is compressed as the outcome is crossed off: wholly or not at all, and never lost."""
    moments = [("before", "settle.1"), ("after", "settle.1")]
    check_recoveries(f"ends of fan-outs, {way.name}", die_at(way.rig, moments))
