"""Do sagas go on where workers with different functions consume one queue?

Two prefork workers with half of the functions each, and the usual lease of 15 s: a message that a
worker threw away would cost that long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from statistics import median
from typing import Any
from uuid import uuid4

import pytest

from multiagents import WorkflowBuilder
from multiagents.core.ports import WorkerInfo
from multiagents.core.states import ENDED
from multiagents.devserver.server import EmbeddedServer
from tests.support.kill_rig import QUIET, Rig
from tests.support.processes import Worker, wait_for

pytestmark = pytest.mark.processes

DATABASE = 11
SAGAS = 200
SOON_S = 2.0
"""Half of the steps begin so soon after the one before, though others threw them back."""
DEADLINE_S = 60.0
"""Of all sagas, on a busy machine."""
BROUGHT_S = 8.0
"""From a worker's announcement, which comes before it takes messages, to the step's end."""


class Halves:
    """A client, the two workers, and one on a queue of its own that has no functions."""

    def __init__(self, rig: Rig, one: Worker, two: Worker, empty: Worker) -> None:
        self.rig, self.one, self.two, self.empty = rig, one, two, empty

    def call(self, operation: str, *args: Any, **options: Any) -> Any:
        return self.rig.runtime.call(operation, *args, **options)

    def ended(self, saga_id: str) -> dict[str, Any]:
        """The saga, when it has."""

        def find() -> Any:
            saga = self.call("get", saga_id)
            return saga if saga["state"] in ENDED else None

        found: dict[str, Any] = wait_for(find, DEADLINE_S, f"the end of saga {saga_id}")
        return found

    def gaps_s(self, saga_id: str) -> list[float]:
        """How long each step waited, after the one before had ended, until it began."""
        found, before = [], 0.0
        for event in self.call("history", saga_id):
            at = datetime.fromisoformat(event["at"]).timestamp()
            if event["type"] == "step_claimed":
                found.append(at - before)
            before = at
        return found


@pytest.fixture(scope="module")
def halves(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Halves]:
    rig = Rig(server.url, DATABASE, tmp_path_factory.mktemp("halves"))
    names = ("half_one", "half_two")
    workers = [worker(rig, imports=f"tests.support.{name}") for name in names]
    workers.append(worker(rig, queue="aside"))
    with ExitStack() as stack:
        for each in workers:
            stack.enter_context(each)
        for each in workers:
            each.wait_ready()
        yield Halves(rig, *workers)
    rig.close()


def worker(rig: Rig, *, queue: str = "io", imports: str = "") -> Worker:
    return Worker(rig.url, *QUIET, "-c", "2", "-Q", queue, imports=imports)


def test_no_saga_waits_for_a_lease(halves: Halves) -> None:
    """Each of 200 completes, half of the steps begin within 2 s, and nothing is parked."""
    workflow = (
        WorkflowBuilder(f"halves_{uuid4().hex[:6]}")
        .add_step("reserve", "half_reserve")
        .add_step("charge", "half_charge")
        .build()
    )
    ids = [halves.call("start", workflow, {}) for _ in range(SAGAS)]
    assert {halves.ended(saga_id)["state"] for saga_id in ids} == {"completed"}
    waited = [gap for saga_id in ids for gap in halves.gaps_s(saga_id)]
    assert len(waited) == 2 * SAGAS
    assert median(waited) < SOON_S
    assert halves.call("dead_letters") == []


def test_each_worker_says_which_functions_it_lacks(halves: Halves) -> None:
    """Its log names each function and its workers once, without Celery's traceback."""
    undone(halves)
    for own, other, names in (
        (halves.one, halves.two, ("half_charge", "half_refuse")),
        (halves.two, halves.one, ("half_reserve",)),
    ):
        for name in names:
            said = [line for line in own.log.splitlines() if f"function={name} " in line]
            assert len(said) <= 1
            assert all(f"has_it={other.name}" in line for line in said)
        assert "unregistered task" not in own.log
    assert "without one of its functions" in halves.one.log + halves.two.log


def test_an_undo_finds_its_worker(halves: Halves) -> None:
    """The compensation of a step that one worker did is a function of the other one."""
    undone(halves)


def undone(halves: Halves) -> None:
    """Let some sagas be undone whose every step and undo changes the worker, or half do."""
    workflow = (
        WorkflowBuilder(f"undo_{uuid4().hex[:6]}")
        .add_step("reserve", "half_reserve", compensation="half_refund")
        .add_step("charge", "half_charge", compensation="half_release")
        .add_step("refuse", "half_refuse")
        .build()
    )
    ids = [halves.call("start", workflow, {}) for _ in range(10)]
    assert {halves.ended(saga_id)["state"] for saga_id in ids} == {"compensated"}


def test_a_worker_that_brings_a_function_is_waited_for_no_longer(halves: Halves) -> None:
    """The step waits without messages; the worker announces itself, and the step begins."""
    halves.rig.runtime.host.catalog.add_local(WorkerInfo("half_pack"))
    workflow = WorkflowBuilder(f"late_{uuid4().hex[:6]}").add_step("pack", "half_pack").build()
    saga_id = halves.call("start", workflow, {})
    wait_for(lambda: wanted(halves), 5.0, "the step to be given back")
    fleet = halves.rig.runtime.catalog.fleet
    with worker(halves.rig, imports="tests.support.half_three") as third:
        wait_for(lambda: third.name in halves.rig.runtime.edge.run(fleet()), 40.0, "the worker")
        wait_for(lambda: halves.call("get", saga_id)["state"] in ENDED, BROUGHT_S, "the step")
    assert halves.call("get", saga_id)["steps"]["pack"]["attempts"] == 1


def wanted(halves: Halves) -> bool:
    return bool(halves.rig.redis.keys("ma:{s00}:wanted"))


def test_a_worker_without_functions_says_so_at_its_start(halves: Halves) -> None:
    """Without MULTIAGENTS_IMPORTS it would return every message, so it warns."""
    (line,) = [each for each in halves.empty.log.splitlines() if "no worker functions" in each]
    assert "MULTIAGENTS_IMPORTS" in line
    assert "no worker functions" not in halves.one.log
