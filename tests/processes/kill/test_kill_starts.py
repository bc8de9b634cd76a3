"""Is a saga whole or not there at all when the client that starts it is killed?

Where broker and state are one server the first messages go out with the record; else, as soon as
somebody listens to what is published, kombu sends each after it.  The clients are processes of
their own, which die before and after each of their calls; the calls are noted first, not listed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multiagents.core.exceptions import UnknownSaga
from multiagents.devserver.server import EmbeddedServer
from multiagents.engine.dispatcher import CHUNK
from tests.support.kill_points import Point
from tests.support.kill_rig import Rig, check_recoveries

pytestmark = [pytest.mark.processes, pytest.mark.alone]

DATABASE = 9
BROAD = "tests.support.kill_wide"
KOMBU = f"{BROAD},tests.support.kill_kombu"
WAYS = {"letters": (BROAD, "True"), "kombu": (KOMBU, "True")}
WIDE_WAYS = {
    **WAYS,
    "all letters": (BROAD, "False"),
    "all by kombu": (KOMBU, "False"),
}
"""What a client imports so that its messages go one way or the other, and whether steps continue
in one process: if so, it sends no more messages than there are slots, else all of them."""
DEATHS = 4
"""At each moment of a small start."""
AT_ONCE = 2
"""Wide sagas that lose their clients together: more would back the queue up."""
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def rig(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A database with one worker, which knows all workflows."""
    rig = Rig(server.url, DATABASE, tmp_path_factory.mktemp("starts"))
    with rig.worker(imports=BROAD) as worker:
        worker.wait_ready()
        yield rig
    rig.close()


def start(rig: Rig, workflow: str, points: list[Point], way: str) -> list[str]:
    """Have clients start a saga each, in one of the ways."""
    imports, continuation = WIDE_WAYS[way]
    on = {"MULTIAGENTS_CONTINUATION": continuation}
    return rig.start_by_clients(workflow, points, imports=imports, **on)


def calls_of(rig: Rig, workflow: str, way: str) -> list[str]:
    """What a client asks of Redis for a start to which nothing happens."""
    (saga_id,) = start(rig, workflow, [Point()], way)
    assert rig.wait_settled(saga_id, DEADLINE_S)["state"] == "completed"
    return rig.calls(saga_id)


def die_at(rig: Rig, workflow: str, points: list[Point], way: str) -> list[float]:
    """Have a client die at each of these; how long each recorded saga then took to its end."""
    saga_ids = start(rig, workflow, points, way)
    wrong: list[tuple[Point, list[str]]] = []
    took_s: list[float] = []
    for point, saga_id in zip(points, saga_ids, strict=True):
        died = rig.killed_at(saga_id)
        if died is None:
            wrong.append((point, ["not reached"]))
        elif (point.when, point.call) == ("before", "start.1"):
            wrong.append((point, left_over(rig, saga_id)))
        else:
            wrong.append((point, faults(rig, saga_id)))
            took_s.append(rig.ended_at(saga_id) - died)
    assert [(point, found) for point, found in wrong if found] == []
    return took_s


def left_over(rig: Rig, saga_id: str) -> list[str]:
    """What there is of a saga that was never recorded; [] is right."""
    try:
        return [f"is {rig.saga(saga_id)['state']}"]
    except UnknownSaga:
        return [f"stands in {key}" for key in rig.traces(saga_id)]


def faults(rig: Rig, saga_id: str) -> list[str]:
    """How a recorded saga differs from one that nothing happened to; [] is right."""
    saga = rig.wait_settled(saga_id, DEADLINE_S)
    found = [] if saga["state"] == "completed" else [f"state {saga['state']}: {saga['error']}"]
    runs = sorted((effect.step, effect.attempt) for effect in rig.effects(saga_id, "run"))
    if runs != sorted((step, 1) for step in saga["steps"]):
        found.append(f"ran {runs}")
    if rig.app.AsyncResult(saga_id).state != "SUCCESS":
        found.append("the outcome was not delivered")
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_start_is_recorded_whole_or_not_at_all(rig: Rig, way: str) -> None:
    """A client dies before and after each of its calls: nothing is left, or all is done once."""
    calls = calls_of(rig, "kp_completes", way)
    assert calls[:2] == ["TIME.1", "start.1"]  # by the server's clock
    assert {"LPUSH.1", "publish.1"} <= set(calls) if way == "kombu" else len(calls) == 2
    points = [Point("child", when, call) for call in calls[1:] for when in ("before", "after")]
    took_s = die_at(rig, "kp_completes", points * DEATHS, way)
    check_recoveries(f"small starts, {way}", took_s)


def moments(calls: list[str]) -> list[Point]:
    """After the record, and after messages and confirmations: the first ones, a middle, a last."""
    sent = [call for call in calls if call.split(".")[0] in ("LPUSH", "publish")]
    some = {*sent[:2], *sent[CHUNK - 1 : CHUNK + 1], *sent[-2:-1]}
    return [Point("child", "after", call) for call in ("start.1", *sorted(some))]


@pytest.mark.parametrize("way", WIDE_WAYS)
def test_a_wide_start_whose_client_dies_runs_each_branch_once(rig: Rig, way: str) -> None:
    """It dies between the scripts, or the messages, that send them; others bring on the rest.

    Whether it sends as many as there are slots, and the others wait, or all of them.
    """
    calls = calls_of(rig, "kp_wide", way)
    assert "publish.2" in calls or not way.startswith("all")
    points = moments(calls)
    took_s = [
        took
        for first in range(0, len(points), AT_ONCE)
        for took in die_at(rig, "kp_wide", points[first : first + AT_ONCE], way)
    ]
    check_recoveries(f"wide starts, {way}", took_s)


def test_a_wide_start_killed_before_its_record_leaves_nothing(rig: Rig) -> None:
    """No branch is sent before the saga stands."""
    before = [Point("child", "before", "start.1")]
    assert [die_at(rig, "kp_wide", before, way) for way in WIDE_WAYS] == [[]] * len(WIDE_WAYS)
