"""Does a wide fan-out survive the death of a process that sends its branches or does them?

As many branches are sent as there are slots, and who ends one goes on with the next, or hands its
place on by a message.  Without continuing in process all are sent: by the commit as many as one
script may, the rest by those that follow.  By kombu each message is a call of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from multiagents.devserver.server import EmbeddedServer
from tests.support.kill_points import Point
from tests.support.kill_rig import Rig, check_recoveries, second_starts
from tests.support.processes import Worker, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.alone]

DATABASE = 12
DEADLINE_S = 30.0
FANS = "tests.support.kill_points,tests.support.kill_wide"
KOMBU = f"{FANS},tests.support.kill_kombu"
SLICE_STEPS = "10"
"""After so many a delivery hands its place on."""


@dataclass(frozen=True)
class Way:
    """How branches come to their workers, and where children die on that way."""

    continuation: str
    imports: str
    moments: tuple[tuple[str, str], ...]

    def worker(self, rig: Rig) -> Worker:
        """A worker of two children that moves sagas so."""
        on = {"MULTIAGENTS_CONTINUATION": self.continuation, "MULTIAGENTS_SLICE_STEPS": SLICE_STEPS}
        return rig.worker("-c", "2", imports=self.imports, **on)


AROUND = ("before", "after")
WAYS = {
    "slots": Way(
        "True", FANS, tuple((when, call) for call in ("advance.1", "advance.50") for when in AROUND)
    ),
    "slots by kombu": Way(
        "True",
        KOMBU,
        (
            ("after", "LPUSH.1"),
            ("before", "LPUSH.5"),
            ("after", "LPUSH.5"),
            ("after", "handover.2"),
        ),
    ),
    "all letters": Way(
        "False", FANS, (("before", "commit.2"), ("after", "commit.2"), ("after", "publish.1"))
    ),
    "all by kombu": Way(
        "False", KOMBU, (("after", "LPUSH.60"), ("after", "publish.2"), ("after", "LPUSH.120"))
    ),
}
"""The call that decides on the fan-out, and one in the middle; a branch's message, the note that a
place is handed on and its message; and likewise where all are sent, a script's worth at once."""


@pytest.fixture(scope="module")
def rig(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(server.url, DATABASE, tmp_path_factory.mktemp("fanout"))
    yield rig
    rig.close()


def faults(rig: Rig, saga_id: str) -> list[str]:
    """How a saga of ``kp_fans`` differs from one that nothing happened to; [] is right.

    One death may cost one attempt: of the step that was at work there.
    """
    saga = rig.wait_settled(saga_id, DEADLINE_S)
    found = [] if saga["state"] == "completed" else [f"state {saga['state']}: {saga['error']}"]
    runs = [effect.step for effect in rig.effects(saga_id, "run")]
    if {*runs} != {*saga["steps"]} or len(runs) > len(saga["steps"]) + 1:
        found.append(f"ran {sorted(runs)}")
    found += [f"second start of {item}" for item in second_starts(rig, saga_id)]
    succeeded = [str(step) for kind, step, _ in rig.events(saga_id) if kind == "step_succeeded"]
    if sorted(succeeded) != sorted(saga["steps"]):
        found.append(f"the history says that these succeeded: {succeeded}")
    if rig.app.AsyncResult(saga_id).state != "SUCCESS":
        found.append("the outcome was not delivered")
    return found


def check(rig: Rig, sagas: dict[str, Point]) -> list[float]:
    """Each of these died where it should, and is whole all the same; how long each then took."""
    wrong = {point: faults(rig, saga_id) for saga_id, point in sagas.items()}
    for saga_id, point in sagas.items():
        wrong[point] += [] if rig.killed_at(saga_id) else ["not reached"]
    assert {point: found for point, found in wrong.items() if found} == {}
    return [rig.ended_at(saga_id) - (rig.killed_at(saga_id) or 0.0) for saga_id in sagas]


def test_a_fan_out_outlives_the_children_that_bring_it_on(rig: Rig) -> None:
    """Around the commit, between messages, in the middle: no branch is lost, none repeated.

    The recoveries of all ways are judged together, for those of one way are a single event: its two
    children die at nearly the same time.  Where one has closed its pipe and cannot be reaped yet,
    Celery looks again 5 s later, and every saga of that worker waits until then.
    """
    took_s = []
    for name, way in WAYS.items():
        with way.worker(rig) as worker:
            worker.wait_ready()
            points = [Point("child", *moment) for moment in way.moments]
            took_s += check(rig, {rig.start("kp_fans", point): point for point in points})
            print(f"{name}: {took_s[-len(points) :]}")
    check_recoveries("fan-outs", took_s)


def test_the_log_of_a_wide_saga_outlives_a_death_at_its_end(rig: Rig) -> None:
    """It is compressed as the outcome is crossed off: wholly or not at all, and never lost."""
    took_s = []
    with WAYS["slots"].worker(rig) as worker:
        worker.wait_ready()
        for when in AROUND:
            point = Point("child", when, "settle.1")
            saga_id = rig.start("kp_fans", point)
            check(rig, {saga_id: point})
            took_s.append(time.time() - (rig.killed_at(saga_id) or 0.0))
    check_recoveries("ends of fan-outs", took_s)


@pytest.mark.parametrize("name", ["slots", "slots by kombu"])
def test_a_fan_out_goes_on_when_all_its_slots_are_lost(rig: Rig, name: str) -> None:
    """No holder of a slot is left, so the outbox is sent to a new worker."""
    point = Point("group", "after", "advance.50")
    with WAYS[name].worker(rig) as worker:
        worker.wait_ready()
        saga_id = rig.start("kp_fans", point)
        wait_for(lambda: worker.process.poll() is not None, DEADLINE_S, "the worker's death")
    with WAYS[name].worker(rig) as worker:
        worker.wait_ready()
        ready = time.time()
        lost = faults(rig, saga_id)
    assert lost == []
    check_recoveries(f"all slots, {name}", [rig.ended_at(saga_id) - ready])
