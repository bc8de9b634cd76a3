"""Does a saga survive the death of its process at every single call to Redis?

The calls are not listed here: two sagas are run and noted first, so that a call that is added
later is covered by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from multiagents.storage.server import EmbeddedServer
from tests.processes import Worker, wait_for
from tests.support.kill_points import Point
from tests.support.kill_rig import RECOVERY_S, Rig, second_starts

pytestmark = pytest.mark.processes

POINTS = "tests.support.kill_points"
RECORDINGS = 4
"""Sagas that are noted first: some by children that have done nothing yet, and others."""
BATCH = 16
"""Sagas that are killed at the same time; the pool must start as many children again."""
DEADLINE_S = 30.0


@dataclass
class Mode:
    """One way in which sagas move, with a worker that moves them so."""

    rig: Rig
    worker: Worker
    calls: list[str]
    """What one saga that fails and undoes itself asks of Redis."""
    always: frozenset[str]
    """Those of them that do not come only from a child which has done nothing yet."""


@pytest.fixture(scope="module", params=["continuation", "messages"])
def mode(
    request: pytest.FixtureRequest, server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mode]:
    """A worker, and the calls that it makes for a saga at first and later."""
    alone = request.param == "continuation"
    rig = Rig(server.url, 1 if alone else 2, tmp_path_factory.mktemp(request.param))
    on = {"MULTIAGENTS_CONTINUATION": str(alone)}
    with rig.worker(imports=POINTS, **on) as worker:
        worker.wait_ready()
        notes = [_undisturbed(rig) for _ in range(RECORDINGS)]
        calls = dict.fromkeys(call for note in notes for call in note)
        yield Mode(rig, worker, list(calls), frozenset.intersection(*map(frozenset, notes)))
    rig.close()


def _undisturbed(rig: Rig) -> list[str]:
    """The calls of a saga to which nothing happens."""
    saga_id = rig.start("kp_breaks", Point())
    assert faults(rig, saga_id) == []
    return rig.calls(saga_id)


def faults(rig: Rig, saga_id: str) -> list[str]:
    """How a saga of ``kp_breaks`` differs from one that nothing happened to; [] is right."""
    saga = rig.wait_settled(saga_id, DEADLINE_S)
    steps = saga["steps"]
    found = []
    if (saga["state"], saga["needs_attention"]) != ("compensated", False):
        found.append(f"state {saga['state']}, attention {saga['attention']}")
    if saga["error"]["type"] != "NonRetryableError":
        found.append(f"error {saga['error']}")
    if (steps["one"]["state"], steps["two"]["state"]) != ("succeeded", "failed"):
        found.append(f"steps {steps}")
    if any(step["compensation"]["state"] != "succeeded" for step in steps.values()):
        found.append("not all undone")
    undone = [effect.step for effect in rig.effects(saga_id, "undo")]
    if sorted(set(undone), key=undone.index) != ["two", "one"]:
        found.append(f"undone in order {undone}")
    found += [f"second start of {item}" for item in second_starts(rig, saga_id)]
    if rig.app.AsyncResult(saga_id).state != "FAILURE":
        found.append("the outcome was not delivered")
    return found


def _late(rig: Rig, saga_id: str, died: float | None) -> list[str]:
    took_s = rig.ended_at(saga_id) - died if died else 0.0
    return [f"went on after {took_s:.1f} s"] if took_s > RECOVERY_S else []


def _kill_all(rig: Rig, points: list[Point], wrong: dict[str, list[str]]) -> list[Point]:
    """A saga for each point, all at once; those that were not reached are returned."""
    missed = []
    for saga_id, point in [(rig.start("kp_breaks", point), point) for point in points]:
        found = faults(rig, saga_id)
        died = rig.killed_at(saga_id)
        if found := found + _late(rig, saga_id, died):
            wrong[f"{point.when} {point.call}"] = found
        if died is None:
            missed.append(point)
    return missed


def test_a_child_killed_at_any_call_costs_no_effect_and_repeats_none(mode: Mode) -> None:
    """Before and after each call of two steps and two undos: all ends as without the kill."""
    points = [Point("child", when, call) for call in mode.calls for when in ("before", "after")]
    wrong: dict[str, list[str]] = {}
    missed: list[Point] = []
    for first in range(0, len(points), BATCH):
        missed += _kill_all(mode.rig, points[first : first + BATCH], wrong)
    # Among so many deaths a sweep may have done what a child was to die of: try those again.
    missed = [point for point in missed if point.call in mode.always]
    missed = [point for point in missed if _kill_all(mode.rig, [point], wrong)]
    assert (wrong, missed) == ({}, [])


def test_every_kind_of_call_is_among_the_points(mode: Mode) -> None:
    """The notes hold what a saga needs of Redis: else the test above would cover nothing."""
    kinds = {call.split(".")[0] for call in mode.calls}
    assert {"claim", "append", "commit", "HGETALL", "MULTI", "settle"} <= kinds
    assert kinds & {"advance", "LPUSH"}


WHOLE = (
    ("after", "claim.2"),
    ("after", "append.2"),
    ("after", "commit.2"),
    ("after", "LPUSH.2"),
    ("before", "settle.1"),
    ("after", "advance.2"),
)
"""A step begun; a report that nobody has decided over; a decision whose messages are not out; one
whose sending is not confirmed; an outcome that is delivered and not crossed off; and, where steps
continue in one process, an undo that was claimed by the end of another."""


def test_a_worker_killed_whole_is_replaced_by_a_new_one(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """The host is lost, not a child: a worker that starts later brings each saga to its end."""
    rigs = [_lone(server, tmp_path, number) for number in range(len(WHOLE))]
    with ExitStack() as stack:
        deaths = []
        for rig, (when, call) in zip(rigs, WHOLE, strict=True):
            stack.callback(rig.close)
            worker = stack.enter_context(_worker(rig, call))
            saga_id = rig.start("kp_breaks", Point("group", when, call))
            deaths.append((rig, worker, saga_id, call))
        followers = [_follow(stack, *death) for death in deaths]
        wrong = {
            call: _slow(rig, saga_id, worker) + faults(rig, saga_id)
            for call, (rig, worker, saga_id) in zip(WHOLE, followers, strict=True)
        }
    assert {call: found for call, found in wrong.items() if found} == {}


def _lone(server: EmbeddedServer, folder: Path, number: int) -> Rig:
    own = folder / str(number)
    own.mkdir()
    return Rig(server.url, 3 + number, own)


def _worker(rig: Rig, call: str) -> Worker:
    """A worker that moves sagas in the way in which such a call is made."""
    alone = call.startswith("advance")
    return rig.worker("-c", "1", imports=POINTS, MULTIAGENTS_CONTINUATION=str(alone))


def _follow(
    stack: ExitStack, rig: Rig, dead: Worker, saga_id: str, call: str
) -> tuple[Rig, Worker, str]:
    """Wait for the death, and start a worker in its place."""
    wait_for(lambda: dead.process.poll() is not None, DEADLINE_S, f"death at {saga_id}")
    return rig, stack.enter_context(_worker(rig, call)), saga_id


def _slow(rig: Rig, saga_id: str, worker: Worker) -> list[str]:
    """Say so if the new worker, once it took work, needed too long to go on."""
    worker.wait_ready()
    ready = time.time()
    rig.wait_end(saga_id)
    took_s = rig.ended_at(saga_id) - ready
    return [f"went on after {took_s:.1f} s"] if took_s > RECOVERY_S else []
