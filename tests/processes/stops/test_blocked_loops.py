"""Is a worker whose event loop is blocked for good made whole, at no cost to other steps?"""

from __future__ import annotations

import pytest

from tests.support.kill_rig import Rig
from tests.support.processes import wait_for

pytestmark = pytest.mark.processes

RECOVERED_S = 12.0
"""A time-out of 2 s, a second to clean up, half a second to look, and a loaded machine."""


def test_a_child_whose_loop_is_blocked_is_replaced(rig: Rig) -> None:
    """As one whose plain function hangs; the next steps, with or without a time-out, go on."""
    with rig.worker("-c", "1") as worker:
        worker.wait_ready()
        bad, good, patient = map(rig.start, ("kp_blocks", "kp_innocents", "kp_patients"))
        saga = rig.wait_settled(bad)
        assert (saga["state"], saga["error"]["type"]) == ("compensated", "StepTimeout")
        for saga_id in (good, patient):
            saga = rig.wait_end(saga_id, RECOVERED_S)
            assert (saga["state"], saga["steps"]["one"]["attempts"]) == ("completed", 1)
        blocked = rig.wait_effect(bad, "run", step="two").pid
        assert rig.wait_effect(patient, "run", step="one").pid != blocked
        assert "a process is ended, another takes its place" in worker.log


def test_a_blocked_loop_of_a_pool_of_threads_is_replaced(rig: Rig) -> None:
    """The others of its process lose no attempt; `explain` and `doctor` name the blocking step."""
    with rig.worker("-P", "threads", "-c", "4") as worker:
        worker.wait_ready()
        bad = rig.start("kp_blocks")
        rig.wait_effect(bad, "run", step="two")
        patient, good = map(rig.start, ("kp_patients", "kp_innocents"))
        blames = f"has been blocked by worker 'kp_block' in step 'two' of saga {bad}"
        wait_for(lambda: blames in rig.runtime.call("explain", patient)["text"], 10.0, "explain")
        for saga_id in (good, patient):
            assert rig.wait_end(saga_id, RECOVERED_S)["state"] == "completed"
            assert len(rig.effects(saga_id, "run")) == 1
        assert rig.saga(patient)["steps"]["one"]["attempts"] == 1
        saga = rig.wait_end(bad, RECOVERED_S)
        assert (saga["state"], saga["error"]["type"]) == ("compensated", "StepTimeout")
        (report,) = rig.runtime.edge.run(rig.runtime.catalog.loops()).values()
        assert report["by"]["saga"] == bad
        for told in ("an event loop is blocked", "wait_for_gate", "a new one takes its place"):
            assert told in worker.log
        rig.open(f"never-{bad}")
        wait_for(lambda: rig.saga(bad)["needs_attention"], 10.0, "the late success")
        assert rig.wait_settled(bad)["state"] == "compensated"
    undone = [effect for effect in rig.effects(bad, "undo") if effect.step == "two"]
    assert undone[-1].at > rig.effects(bad, "ran")[0].at
