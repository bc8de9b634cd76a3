"""Does the recovery time follow its definition in docs/explanation/chaos.md?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Started,
    Succeeded,
    TimerDue,
)
from multiagents.core.states import Kind
from multiagents.lab.chaos.plan import KILLS, ChaosPlan, FaultKind, schedule
from multiagents.lab.chaos.recovery import ALL_KILLS, Fault, Log, Recovery, recoveries, summary

RUN, UNDO = Kind.RUN, Kind.UNDO


def claimed(
    at_ms: int, step: str = "a", attempt: int = 1, kind: Kind = RUN, worker: str = "w1"
) -> Entry:
    return Claimed(at_ms, kind, step, attempt, f"{kind}{step}{attempt}", worker=worker)


def lost(at_ms: int, step: str = "a", attempt: int = 1, kind: Kind = RUN) -> Entry:
    return Lost(at_ms, kind, step, attempt, f"{kind}{step}{attempt}")


def failed(at_ms: int, kind_of_error: str, step: str = "a", attempt: int = 1) -> Entry:
    error = Failure(kind_of_error, "")
    return Failed(at_ms, RUN, step, attempt, f"{RUN}{step}{attempt}", error)


def succeeded(at_ms: int, step: str = "a", attempt: int = 1) -> Entry:
    return Succeeded(at_ms, RUN, step, attempt, f"{RUN}{step}{attempt}")


KILL = Fault(FaultKind.KILL_ALL, 1000, "w1")


def times(log: Log, *faults: Fault) -> dict[FaultKind, list[int]]:
    return {kind: list(found) for kind, found in recoveries(faults, [log]).times_ms.items()}


def test_a_killed_workers_step_has_recovered_with_its_next_attempt() -> None:
    """The time runs from the kill and includes lease and back-off."""
    log = [Started(0), claimed(900), lost(3900), TimerDue(4200, "run:a:1"), claimed(4500, "a", 2)]
    assert times(log, KILL) == {FaultKind.KILL_ALL: [3500]}


def test_a_child_whose_death_was_seen_has_recovered_likewise() -> None:
    """The main process reports the child's death before the lease expires."""
    log = [claimed(900), failed(1200, "WorkerLostError"), claimed(1700, "a", 2)]
    assert times(log, replace(KILL, kind=FaultKind.KILL_CHILD)) == {FaultKind.KILL_CHILD: [700]}


def test_an_attempt_that_failed_by_itself_was_not_hit() -> None:
    """An attempt that reported its success was not hit either: orphans finish their work."""
    assert times([claimed(900), failed(1200, "ValueError"), claimed(1700, "a", 2)], KILL) == {}
    assert times([claimed(900), succeeded(1200), claimed(1300, "b")], KILL) == {}


def test_a_sibling_that_goes_on_is_no_recovery() -> None:
    """A parallel step's claim does not count; the lost step's next attempt does."""
    log = [claimed(900), claimed(1500, "b"), lost(3900), claimed(4000, "c"), claimed(4100, "a", 2)]
    assert times(log, KILL) == {FaultKind.KILL_ALL: [3100]}


def test_an_undo_is_a_way_to_go_on() -> None:
    """After the last attempt is lost, the saga's compensation counts as recovery."""
    log = [claimed(900, "a", 3), lost(3900, "a", 3), claimed(4000, "z", 1, UNDO)]
    assert times(log, KILL) == {FaultKind.KILL_ALL: [3000]}


def test_where_nothing_follows_the_loss_counts() -> None:
    """A lost last attempt of an undo counts until it is parked."""
    assert times([claimed(900, "a", 3, UNDO), lost(3900, "a", 3, UNDO)], KILL) == {
        FaultKind.KILL_ALL: [2900]
    }


def test_only_what_the_dead_worker_held_was_hit() -> None:
    """Later claims of that worker and claims of other workers do not count."""
    late = [claimed(2000), lost(5000), claimed(5100, "a", 2)]
    found = recoveries([KILL], [late])
    assert (dict(found.times_ms), found.unexplained) == ({}, 1)
    found = recoveries([replace(KILL, worker="w2")], [[claimed(900), lost(3900)]])
    assert (dict(found.times_ms), found.unexplained) == ({}, 1)


def test_a_loss_counts_for_the_first_fault_that_explains_it() -> None:
    """A worker may freeze, wake as a zombie and be killed."""
    pause = Fault(FaultKind.PAUSE, 1000, "w1")
    log = [claimed(900), lost(3900), claimed(4000, "a", 2)]
    assert times(log, replace(KILL, at_ms=3000), pause) == {FaultKind.PAUSE: [3000]}


def test_each_loss_of_a_saga_counts() -> None:
    """Two attempts lost on two killed workers give two times."""
    log = [
        claimed(900),
        lost(3900),
        claimed(4000, "a", 2),
        lost(8000, "a", 2),
        claimed(8200, "a", 3),
    ]
    again = replace(KILL, at_ms=5000)
    assert times(log, KILL, again) == {FaultKind.KILL_ALL: [3000, 3200]}


@pytest.mark.parametrize("kind", [FaultKind.KILL_SERVER, FaultKind.CUT])
def test_a_saga_in_flight_has_recovered_with_its_next_entry(kind: FaultKind) -> None:
    """Any entry counts; sagas that had ended or not begun do not."""
    fault = Fault(kind, 1000)
    assert times([Started(0), claimed(900), succeeded(2500)], fault) == {kind: [1500]}
    assert times([Started(0), claimed(500), succeeded(1000)], fault) == {}
    assert times([Started(1001), claimed(1100), succeeded(1200)], fault) == {}
    assert times([], fault) == {}


def test_median_p99_and_maximum_are_told_in_seconds() -> None:
    """The 99th percentile is a nearest rank, so it is a measured time."""
    assert summary([]) == Recovery(0, None, None, None)
    assert summary([3000, 1000]) == Recovery(2, 2.0, 3.0, 3.0)
    assert summary(list(range(1000, 201_000, 1000))) == Recovery(200, 100.5, 198.0, 200.0)


def test_all_kills_are_told_together() -> None:
    """The sum of all kills stands beside each kind, without pauses."""
    faults = [Fault(kind, 1000, kind.value) for kind in (*KILLS, FaultKind.PAUSE)]
    logs = [
        [claimed(900, worker=fault.worker), lost(2000), claimed(2000 + number, "a", 2)]
        for number, fault in enumerate(faults)
    ]
    found = recoveries(faults, logs).summary()
    assert found[ALL_KILLS] == Recovery(3, 1.001, 1.002, 1.002)
    assert found["pause"].count == 1


# ---- the schedule ----


def test_the_schedule_is_the_seeds() -> None:
    """A seed gives the same faults in the same order, all within the run."""
    plan = ChaosPlan(seconds=600, kills=50, pauses=10, server_kills=11, cuts=12, lease_s=5, seed=3)
    found = schedule(plan)
    assert found == schedule(plan)
    assert found != schedule(replace(plan, seed=4))
    assert [one.at_s for one in found] == sorted(one.at_s for one in found)
    assert found[0].at_s >= 0
    assert found[-1].at_s <= 600
    counts = {kind: sum(one.kind is kind for one in found) for kind in FaultKind}
    assert sum(counts[kind] for kind in KILLS) == 50
    assert [counts[kind] for kind in FaultKind if kind not in KILLS] == [10, 11, 12]


def test_pauses_are_longer_than_the_lease() -> None:
    """A paused worker therefore wakes as a zombie."""
    plan = ChaosPlan(pauses=200, lease_s=2)
    pauses = [one.lasts_s for one in schedule(plan) if one.kind is FaultKind.PAUSE]
    assert min(pauses) > plan.lease_s


def test_steps_take_as_long_as_the_workers_have_time() -> None:
    """A step is long enough to be hit, and short enough to end within the run."""
    assert ChaosPlan(seconds=600, sagas=5000, workers=4).step_s == pytest.approx(0.12)
    assert ChaosPlan(seconds=1, sagas=100_000).step_s == 0.005
    assert ChaosPlan(seconds=3600, sagas=1).step_s == 1
