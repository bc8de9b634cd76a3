"""What happens to a saga whose worker dies, freezes or loses a child?"""

from __future__ import annotations

import signal
import time
from datetime import datetime
from typing import Any

import pytest

from tests.support.kill_rig import LEASE_S, RECOVERY_S, Rig, second_starts
from tests.support.processes import Worker, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.alone]

NOTICED_S = 6.0
"""An idle main process of Celery looks for lost children every 5 s."""
FROZEN_S = 2 * LEASE_S + 5.0
"""A frozen worker's connection may still take the next message: it is sent again a lease later."""


def test_a_new_worker_goes_on_where_the_only_one_was_killed(rig: Rig) -> None:
    """kill -9 in the middle of a long step: it is begun again, the step before it is not."""
    with rig.worker() as first:
        first.wait_ready()
        saga_id = rig.start("kp_long", gates={"1": "never"})
        rig.wait_effect(saga_id, "run", step="two")
        first.kill()
    with rig.worker() as second:
        second.wait_ready()
        ready = time.time()
        assert rig.wait_settled(saga_id)["state"] == "completed"
    assert rig.ended_at(saga_id) - ready < RECOVERY_S
    assert [(e.step, e.attempt) for e in rig.effects(saga_id, "run")] == [
        ("one", 1),
        ("two", 1),
        ("two", 2),
    ]
    assert second_starts(rig, saga_id) == []


def test_a_frozen_workers_late_result_changes_nothing_but_is_recorded(rig: Rig) -> None:
    """The zombie wakes after another has done its step: its report stands in the log only."""
    with rig.worker("-c", "1") as one, rig.worker("-c", "1") as other:
        saga_id, holder = _freeze(rig, [one, other], "kp_long", step="two")
        done = rig.wait_settled(saga_id, FROZEN_S)
        assert (done["state"], done["result"]) == ("completed", {"two": 2})
        _thaw(rig, holder)
        wait_for(lambda: ("step_succeeded", "two", 1) in rig.events(saga_id), 10.0, "late report")
        after = rig.wait_settled(saga_id)
    assert {**after, "updated_at": None} == {**done, "updated_at": None}
    assert second_starts(rig, saga_id) == []


@pytest.mark.parametrize("told", [False, True])
def test_a_frozen_workers_late_success_is_undone_again(rig: Rig, told: bool) -> None:
    """It was undone for lost, then its effect came to light after the end: undone once more.

    So it is whether or not the worker was ``told`` of its loss before its function returned.
    """
    with rig.worker("-c", "1") as one, rig.worker("-c", "1") as other:
        saga_id, holder = _freeze(rig, [one, other], "kp_once", step="one")
        assert rig.wait_settled(saga_id, FROZEN_S)["state"] == "compensated"
        if told:
            holder.signal(signal.SIGCONT)
            wait_for(lambda: "lease lost" in holder.log, 10.0, "the worker to be told")
        _thaw(rig, holder)
        wait_for(lambda: len(rig.effects(saga_id, "undo")) == 2, 10.0, "the second undo")
        after = rig.wait_settled(saga_id)
    assert (after["state"], after["needs_attention"]) == ("compensated", True)
    assert [effect.attempt for effect in rig.effects(saga_id, "undo")] == [1, 2]
    assert rig.app.AsyncResult(saga_id).state == "FAILURE"


def _freeze(rig: Rig, workers: list[Worker], workflow: str, *, step: str) -> tuple[str, Worker]:
    """Start a saga and stop the worker that has its step in hand, with all its children."""
    for worker in workers:
        worker.wait_ready()
    saga_id = rig.start(workflow, gates={"1": "late"})
    rig.wait_effect(saga_id, "run", step=step)
    name = rig.saga(saga_id)["steps"][step]["worker"]
    holder = next(worker for worker in workers if worker.name == name)
    holder.signal(signal.SIGSTOP)
    return saga_id, holder


def _thaw(rig: Rig, holder: Worker) -> None:
    """Let the stopped worker go on, and its function return."""
    rig.open("late")
    holder.signal(signal.SIGCONT)


def test_a_lost_child_fails_its_attempt_at_once_and_is_not_tried_for_ever(rig: Rig) -> None:
    """WorkerLostError reaches the saga by the errback, long before the lease runs out."""
    with rig.worker(MULTIAGENTS_LEASE_S="30") as worker:
        worker.wait_ready()
        saga_id = rig.start("kp_suicides")
        saga = rig.wait_settled(saga_id)
    assert (saga["state"], saga["error"]["type"]) == ("compensated", "WorkerLostError")
    runs = [effect for effect in rig.effects(saga_id, "run") if effect.step == "two"]
    assert [effect.attempt for effect in runs] == [1, 2]
    ends = [at(row) for row in rig.history(saga_id) if row["type"] == "step_failed"]
    assert [end - effect.at < NOTICED_S for effect, end in zip(runs, ends, strict=True)] == [
        True
    ] * 2


def at(event: dict[str, Any]) -> float:
    """When a thing happened, Unix time."""
    return datetime.fromisoformat(event["at"]).timestamp()
