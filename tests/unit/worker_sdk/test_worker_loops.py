"""Is an event loop that does not answer noticed, and are its other attempts spared?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from multiagents.cli.doctor.loops import loops as loop_check
from multiagents.core.exceptions import LoopBlocked, StepTimeout
from multiagents.core.states import FailureEffect, Kind
from multiagents.operations.explain.blocked_loops import blocked_now, told_of_loop
from multiagents.worker_sdk import async_attempts, loop, loop_watch
from multiagents.worker_sdk.activity import Activity
from multiagents.worker_sdk.attempt import verdict_of
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.execute import execute
from multiagents.worker_sdk.loop_watch import LoopWatch, Pulse, Report
from multiagents.worker_sdk.registry import Worker
from tests.support.processes import until

DEADLINE_S = 10.0


class Rig:
    """A fast watch over a separate loop, and attempts in threads."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.told: list[Report] = []
        self.go = threading.Event()
        self.begun = threading.Event()
        self._pool = pool

    async def block(self, context: Context) -> dict[str, Any]:
        """Block the loop, which no ``async def`` should do."""
        self.begun.set()
        assert self.go.wait(DEADLINE_S)
        return {"blocked": True}

    async def where(self, context: Context) -> dict[str, Any]:
        """A harmless step that returns its loop."""
        return {"loop": id(asyncio.get_running_loop())}

    def begin(self, function: Any, name: str, **options: Any) -> Future[Any]:
        context = Context(transaction_id="S", step=name, attempt=1)
        worker = Worker(function, name)
        return self._pool.submit(execute, worker, context, token=f"n-{name}", **options)

    def begin_block(self, **options: Any) -> Future[Any]:
        blocking = self.begin(self.block, "blocks", **options)
        assert self.begun.wait(DEADLINE_S)
        return blocking


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    watch = LoopWatch(beat_s=0.05, blocked_s=0.3, stuck_s=60)
    monkeypatch.setattr(loop_watch, "watch", watch)
    loop.home().retire()
    with ThreadPoolExecutor(4) as pool:
        made = Rig(pool)
        watch.tell = made.told.append
        yield made
        made.go.set()
    loop.home().retire()


# ---- it is named ----


def test_the_attempt_that_blocks_a_loop_is_named_with_its_stack(rig: Rig) -> None:
    """Log, `doctor` and `explain` name it, unless it delays no other attempt."""
    before = loop.process_loop()
    with capture_logs() as logs:
        blocking = rig.begin_block()
        until(lambda: rig.told, "the blockage")
        rig.go.set()
        assert blocking.result(DEADLINE_S) == {"blocked": True}
        until(lambda: len(rig.told) == 2, "its end")
    line, end = logs
    assert (line["event"], end["event"]) == (
        "an event loop is blocked",
        "an event loop answers again",
    )
    assert (line["saga"], line["step"], line["attempt"]) == ("S", "blocks", 1)
    assert "assert self.go.wait(DEADLINE_S)" in line["stack"]
    blocked, over = rig.told
    assert blocked["by"] == {"saga": "S", "step": "blocks", "attempt": 1, "worker": "blocks"}
    assert (blocked["blocked"], over["blocked"]) == (True, False)
    assert (blocked["token"], blocked["held"]) == ("n-blocks", ["n-blocks"])
    assert over["lag_ms"] >= blocked["lag_ms"] >= 300
    assert loop.process_loop() is before


def test_the_code_of_an_attempts_own_task_is_its_own(rig: Rig) -> None:
    """A blocking call in a task counts for the attempt that created the task."""

    async def function(context: Context) -> Any:
        return (await asyncio.gather(rig.block(context), asyncio.sleep(0)))[0]

    blocking = rig.begin(function, "gathers")
    until(lambda: rig.told, "the blockage")
    assert rig.told[0]["by"]["worker"] == "gathers"
    rig.go.set()
    blocking.result(DEADLINE_S)


# ---- it is replaced ----


def test_a_loop_that_a_timed_out_attempt_blocks_is_replaced(rig: Rig) -> None:
    """The next steps get a new loop; the late end on the old one is reported, and the loop ends."""
    home = loop.home()
    blocking = rig.begin_block(timeout_s=0.2)
    waiting = rig.begin(rig.where, "innocent")  # without its own timeout
    with pytest.raises(StepTimeout, match="is still at work"):
        blocking.result(DEADLINE_S)
    left = async_attempts.taken("n-blocks")
    assert waiting.result(DEADLINE_S) == {"loop": id(loop.process_loop())}
    assert loop.home() is not home
    assert left is not None
    ended: list[str] = []
    left.leave(lambda ending: ended.append(ending.finish() if ending.finish else ""))
    rig.go.set()
    until(lambda: ended, "the late result")
    assert ended == ['{"blocked":true}']
    until(home.loop.is_closed, "the end of the old loop")


def test_a_step_without_a_time_out_does_not_wait_for_ever(rig: Rig) -> None:
    """After a while the others move to a new loop, and the blocking one goes on."""
    loop_watch.watch.stuck_s = 0.6
    entered = threading.Event()

    async def patient(context: Context) -> None:
        entered.set()
        await asyncio.sleep(60)

    inside = rig.begin(patient, "patient")
    assert entered.wait(DEADLINE_S)
    blocking = rig.begin_block()
    outside = rig.begin(rig.where, "innocent")
    assert outside.result(DEADLINE_S) == {"loop": id(loop.process_loop())}
    error = inside.exception(DEADLINE_S)
    assert isinstance(error, LoopBlocked)
    assert "blocked by worker 'blocks' in step 'blocks' of saga S" in str(error)
    assert async_attempts.taken("n-patient") is not None  # it goes on together with its loop
    assert not blocking.done()
    rig.go.set()
    assert blocking.result(DEADLINE_S) == {"blocked": True}


def test_a_child_gives_back_what_it_cannot_begin(rig: Rig) -> None:
    """Code left by an ended attempt blocks the loop, so the process is replaced."""
    loop_watch.watch.stuck_s = 0.6
    loop_watch.watch.ends_process = True

    async def leaves_a_call(context: Context) -> dict[str, Any]:
        asyncio.get_running_loop().call_later(0.1, call)
        return {}

    def call() -> None:
        rig.begun.set()
        rig.go.wait(DEADLINE_S)

    assert rig.begin(leaves_a_call, "leaves").result(DEADLINE_S) == {}
    assert rig.begun.wait(DEADLINE_S)
    error = rig.begin(rig.where, "innocent").exception(DEADLINE_S)
    assert isinstance(error, LoopBlocked)
    assert not error.entered
    assert "blocked by worker 'leaves'" in str(error)


def test_a_loop_that_is_retired_before_an_attempt_begins_is_left(rig: Rig) -> None:
    """The retired loop ends once it has no attempt."""
    home = loop.home()

    async def function() -> dict[str, Any]:
        return {"loop": id(asyncio.get_running_loop())}

    waiting = async_attempts.AwaitedCall("w", function(), Activity("w"))
    home.retire()
    until(home.loop.is_closed, "the end of the old loop")
    waiting.begin()
    waiting.wait(DEADLINE_S)
    assert waiting.outcome() == {"loop": id(loop.process_loop())}
    waiting.end()


def test_an_attempt_that_moves_while_it_begins_is_run_once(rig: Rig) -> None:
    """Its loop is retired between the choice and the attempt's arrival."""
    old, runs = loop.home(), 0

    async def function() -> dict[str, Any]:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.05)
        return {"loop": id(asyncio.get_running_loop())}

    waiting = async_attempts.AwaitedCall("w", function(), Activity("w"))
    old.enter(waiting)
    old.retire()
    waiting.displace("blocked", move=True)
    waiting.begin()
    waiting.wait(DEADLINE_S)
    assert (waiting.outcome(), runs) == ({"loop": id(loop.process_loop())}, 1)
    waiting.end()


def test_an_attempt_that_has_moved_by_itself_stays_where_it_is(rig: Rig) -> None:
    """A second request to move changes nothing while the old loop still lists it."""

    async def function() -> dict[str, Any]:
        return {}

    waiting = async_attempts.AwaitedCall("w", function(), Activity("w"))
    loop.home().retire()
    waiting.home = loop.home()
    waiting.home.enter(waiting)
    waiting.displace("blocked", move=True)
    assert waiting.home.attempts == {waiting}
    waiting.begin()
    waiting.wait(DEADLINE_S)
    assert waiting.outcome() == {}
    waiting.end()


def test_an_attempt_moves_while_its_old_loop_is_about_to_begin_it(rig: Rig) -> None:
    """Two loops cannot enter one context at once."""

    async def function() -> dict[str, Any]:
        return {}

    waiting = async_attempts.AwaitedCall("w", function(), Activity("w"))

    def move() -> None:
        waiting.begin()
        waiting.wait(1.0)

    waiting._context.run(move)
    assert waiting.outcome() == {}
    waiting.end()


def test_a_loop_that_has_just_closed_takes_no_attempt_with_it(rig: Rig) -> None:
    """A loop may close between check and call; that is no error of the attempt."""
    home = loop.home()
    home.retire()
    until(home.loop.is_closed, "its end")
    home.call(home.loop.stop)


# ---- the others lose no attempt ----


def test_an_attempt_that_was_not_entered_is_given_back_clean(rig: Rig) -> None:
    """Such an attempt had no effect and does not count."""
    rig.begin_block()
    error = rig.begin(rig.where, "innocent", timeout_s=0.1).exception(DEADLINE_S)
    assert isinstance(error, LoopBlocked)
    assert "'innocent' was not entered" in str(error)
    assert "worker 'blocks'" in str(error)
    for kind in Kind:
        verdict = verdict_of(error, kind)
        assert (verdict.effect, verdict.retryable, verdict.counts) == (
            FailureEffect.CLEAN,
            True,
            False,
        )
        assert verdict.retry_after_ms == 500
    assert async_attempts.taken("n-innocent") is None


def test_an_attempt_that_was_cut_off_does_not_count(rig: Rig) -> None:
    """Its timeout passes on a loop that another attempt blocks."""
    entered = threading.Event()

    async def innocent(context: Context) -> None:
        entered.set()
        await asyncio.sleep(60)

    cut_off = rig.begin(innocent, "innocent", timeout_s=0.5)
    assert entered.wait(DEADLINE_S)
    rig.begin_block()
    error = cut_off.exception(DEADLINE_S)
    assert isinstance(error, LoopBlocked)
    verdict = verdict_of(error, Kind.RUN)
    assert (verdict.effect, verdict.counts) == (FailureEffect.UNKNOWN, False)


def test_an_attempt_whose_time_another_has_eaten_does_not_count(rig: Rig) -> None:
    """The loop answers again just before its timeout."""
    entered = threading.Event()

    async def innocent(context: Context) -> None:
        entered.set()
        await asyncio.sleep(60)

    eaten = rig.begin(innocent, "innocent", timeout_s=2.0)
    assert entered.wait(DEADLINE_S)
    rig.begin_block()
    lost_s = partial(
        loop_watch.watch.lost_s,
        loop.home(),
        to_others_than=async_attempts._waited_for["n-innocent"].activity,
    )
    until(lambda: lost_s() > 1.1, "half of its time")
    rig.go.set()
    error = eaten.exception(DEADLINE_S)
    assert isinstance(error, LoopBlocked), error


def test_the_attempt_that_blocks_counts(rig: Rig) -> None:
    """The blocking attempt caused its own timeout."""
    error = rig.begin_block(timeout_s=0.2).exception(DEADLINE_S)
    assert isinstance(error, StepTimeout)
    assert verdict_of(error, Kind.RUN).counts


def test_a_process_that_stood_still_takes_no_loop_for_blocked() -> None:
    """After a SIGSTOP of a minute a look counts for two beats, because the loop had no turn."""
    home = loop.home()
    pulse = Pulse(home)
    pulse.is_asked, pulse.looked_at = True, 100.0
    pulse.look(160.0, most_s=1.0)
    pulse.look(160.5, most_s=1.0)
    assert pulse.silent_s == 1.5


# ---- what people are told ----

REPORT = {
    "at_ms": 1_000_000,
    "blocked": True,
    "lag_ms": 12_000,
    "by": {"saga": "S", "step": "a", "attempt": 1, "worker": "blocks"},
    "token": "n1",
    "place": "shop.py:7 in blocks",
    "held": ["n1", "n2"],
}


def test_explain_names_who_blocks_and_who_waits() -> None:
    """Both sagas are running, and one of them blocks the loop."""
    own = told_of_loop(REPORT, "n1", 1_003_000)
    assert own.startswith("It has blocked the event loop of its process for 15 s, at shop.py:7")
    other = told_of_loop(REPORT, "n2", 1_003_000)
    assert "blocked by worker 'blocks' in step 'a' of saga S for 15 s" in other
    assert "without losing an attempt" in other


def test_what_is_told_of_a_loop_fades() -> None:
    """The report expires, because a killed process sends no end."""
    assert blocked_now({"w": REPORT}, 1_020_000) == [REPORT]
    assert blocked_now({"w": REPORT}, 1_031_000) == []
    assert blocked_now({"w": {**REPORT, "blocked": False}}, 1_001_000) == []


def test_the_doctor_warns_of_a_blocked_loop() -> None:
    """The warning lasts an hour and says what to do."""
    check = loop_check({"w1": {**REPORT, "blocked": False}}, 1_600_000)
    assert check.status == "warn"
    assert check.message == (
        "a loop of w1 was blocked by worker 'blocks' in step 'a' of saga S for 12.0 s, at"
        " shop.py:7 in blocks"
    )
    assert "asyncio.to_thread" in check.fix
    assert loop_check({"w1": REPORT}, 5_000_000).status == "ok"
