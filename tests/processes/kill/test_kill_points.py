"""Does a saga survive the death of its process at every single call to Redis?

The calls are not listed here: two sagas are run and noted first, so that a call that is added
later is covered by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from multiagents.devserver.server import EmbeddedServer
from tests.support.kill_points import Point
from tests.support.kill_rig import Rig, check_recoveries, second_starts
from tests.support.processes import Worker, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.alone]

POINTS = "tests.support.kill_points"


class Way(NamedTuple):
    """A way in which sagas move."""

    continuation: bool
    """Whether steps continue in one process."""
    imports: str = POINTS
    """So that a worker's messages go out with its commits, or after them."""
    workflow: str = "kp_breaks"
    calls: frozenset[str] | None = None
    """Those in which it differs from the others; None: all."""


MODES = {
    "continuation": Way(True),
    "messages": Way(False),
    "kombu": Way(
        False,
        f"{POINTS},tests.support.kill_kombu",
        calls=frozenset({"advance", "commit", "LPUSH", "publish"}),
    ),
    "conditions": Way(True, workflow="kp_chooses", calls=frozenset({"append", "commit"})),
}
KINDS = {
    "continuation": {"claim", "advance", "settle"},
    "messages": {"claim", "advance", "settle"},
    "kombu": {"claim", "advance", "publish", "settle"},
    "conditions": {"claim", "append", "commit", "settle"},
}
"""What a saga needs of Redis in each."""
RECORDINGS = 4
"""Sagas that are noted first: some by children that have done nothing yet, and others."""
BATCH = 16
"""Sagas that are killed at the same time; the pool must start as many children again."""
FEW = 4
"""Sagas that are killed at the same time where no sweep may come first."""
DEADLINE_S = 30.0


@dataclass
class Mode:
    """One way in which sagas move, with a worker that moves them so."""

    name: str
    rig: Rig
    worker: Worker
    calls: list[str]
    """What one saga that fails and undoes itself asks of Redis."""
    always: frozenset[str]
    """Those of them that do not come only from a child which has done nothing yet."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MODES],
)
def mode(
    request: pytest.FixtureRequest, server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mode]:
    """A worker, and the calls that it makes for a saga at first and later."""
    name: str = request.param
    rig = Rig(server.url, 1, tmp_path_factory.mktemp(name))
    with _worker(rig, name) as worker:
        worker.wait_ready()
        notes = [_undisturbed(rig, name) for _ in range(RECORDINGS)]
        calls = dict.fromkeys(call for note in notes for call in note)
        yield Mode(name, rig, worker, list(calls), frozenset.intersection(*map(frozenset, notes)))
    rig.close()


def _worker(rig: Rig, mode: str, *args: str) -> Worker:
    """A worker that moves sagas in that way."""
    way = MODES[mode]
    return rig.worker(*args, imports=way.imports, MULTIAGENTS_CONTINUATION=str(way.continuation))


def _undisturbed(rig: Rig, mode: str) -> list[str]:
    """The calls of a saga to which nothing happens."""
    saga_id = rig.start(MODES[mode].workflow, Point())
    assert faults(rig, saga_id) == []
    return rig.calls(saga_id)


def faults(rig: Rig, saga_id: str) -> list[str]:
    """How a saga that breaks differs from one that nothing happened to; [] is right."""
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


@dataclass
class Findings:
    """What came of many deaths."""

    wrong: dict[str, list[str]] = field(default_factory=dict)
    missed: list[Point] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    """From each death to the saga's end."""


def _kill_all(mode: Mode, points: list[Point], at_once: int, findings: Findings) -> None:
    """A saga for each point, so many at once."""
    for first in range(0, len(points), at_once):
        _kill(mode.rig, MODES[mode.name].workflow, points[first : first + at_once], findings)


def _kill(rig: Rig, workflow: str, points: list[Point], findings: Findings) -> None:
    for saga_id, point in [(rig.start(workflow, point), point) for point in points]:
        found = faults(rig, saga_id)
        if found:
            findings.wrong[f"{point.when} {point.call}"] = found
        died = rig.killed_at(saga_id)
        if died is None:
            findings.missed.append(point)
        else:
            findings.took_s.append(rig.ended_at(saga_id) - died)


def test_a_child_killed_at_any_call_costs_no_effect_and_repeats_none(mode: Mode) -> None:
    """Before and after each call of two steps and two undos: all ends as without the kill."""
    chosen = MODES[mode.name].calls
    calls = [call for call in mode.calls if chosen is None or call.split(".")[0] in chosen]
    points = [Point("child", when, call) for call in calls for when in ("before", "after")]
    findings = Findings()
    _kill_all(mode, points, BATCH, findings)
    # Among so many deaths a sweep may have done what a child was to die of: try those again.
    for at_once in (FEW, 1):
        again = [point for point in findings.missed if point.call in mode.always]
        findings.missed = []
        _kill_all(mode, again, at_once, findings)
    assert (findings.wrong, findings.missed) == ({}, [])
    check_recoveries(f"children, {mode.name}", findings.took_s)


def test_every_kind_of_call_is_among_the_points(mode: Mode) -> None:
    """The notes hold what a saga needs of Redis: else the test above would cover nothing.

    And its way is what its name says: only kombu's messages are confirmed after they are sent, and
    a process that continues claims the first step alone by a message.
    """
    kinds = {call.split(".")[0] for call in mode.calls}
    assert KINDS[mode.name] <= kinds
    assert ("publish" in kinds) is (mode.name == "kombu")
    assert ("claim.2" in mode.always) is not MODES[mode.name].continuation


WHOLE = (
    ("messages", "after", "claim.2"),
    ("conditions", "after", "append.2"),
    ("messages", "after", "advance.2"),
    ("messages", "before", "settle.1"),
    ("kombu", "after", "advance.2"),
    ("kombu", "after", "LPUSH.2"),
    ("continuation", "after", "advance.2"),
)
"""A step begun; a report that nobody has decided over; a decision that has sent its messages; an
outcome that is delivered and not crossed off; by kombu, a decision whose messages are not out, and
one whose sending is not confirmed; and, where steps continue in one process, an undo that was
claimed by the end of another."""


@dataclass
class Death:
    """A saga at work in a worker that is to die of it."""

    mode: str
    rig: Rig
    worker: Worker
    saga_id: str


def test_a_worker_killed_whole_is_replaced_by_a_new_one(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """The host is lost, not a child: a worker that starts later brings each saga to its end."""
    with ExitStack() as stack:
        deaths = [_begin(stack, server, tmp_path, *what) for what in enumerate(WHOLE)]
        followers = [_follow(stack, death) for death in deaths]
        ready = [_ready_at(worker) for worker in followers]
        wrong = [faults(death.rig, death.saga_id) for death in deaths]
        ends = [death.rig.ended_at(death.saga_id) for death in deaths]
    assert {what: found for what, found in zip(WHOLE, wrong, strict=True) if found} == {}
    check_recoveries("whole workers", [end - at for end, at in zip(ends, ready, strict=True)])


def _begin(
    stack: ExitStack, server: EmbeddedServer, folder: Path, number: int, what: tuple[str, str, str]
) -> Death:
    """Start a worker and its saga, in a database of their own."""
    mode, *moment = what
    own = folder / str(number)
    own.mkdir()
    rig = Rig(server.url, 3 + number, own)
    stack.callback(rig.close)
    worker = stack.enter_context(_worker(rig, mode, "-c", "1"))
    return Death(mode, rig, worker, rig.start(MODES[mode].workflow, Point("group", *moment)))


def _follow(stack: ExitStack, death: Death) -> Worker:
    """Wait for the death, and start a worker in its place."""
    process = death.worker.process
    wait_for(lambda: process.poll() is not None, DEADLINE_S, f"death at {death.saga_id}")
    return stack.enter_context(_worker(death.rig, death.mode, "-c", "1"))


def _ready_at(worker: Worker) -> float:
    """Unix time at which a new worker is known to take work."""
    worker.wait_ready()
    return time.time()
