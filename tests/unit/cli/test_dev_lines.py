"""What does each event of a saga look like in the terminal of `dev`?"""

from __future__ import annotations

import re
import sys
import types
from bdb import BdbQuit
from pathlib import Path
from typing import Any

import pytest

from multiagents.cli.own_code import own_files
from multiagents.cli.saga_lines import lines_of, started
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Requested,
    Started,
    Succeeded,
    TimerDue,
    Unroutable,
)
from multiagents.core.error_names import names_of
from multiagents.core.places import is_users
from multiagents.core.states import Action, FailureEffect, Kind
from multiagents.engine.continuation import Move
from multiagents.saga.commands import DEADLINE, retry_timer
from multiagents.saga.decide import fold
from multiagents.saga.state import new_saga
from multiagents.storage.commit import Commit
from multiagents.worker_sdk.execute import classify
from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.workflow import Workflow

ID = "3636fd8b-e741-496b-8b3e-e511bd9ca729"
ORDER = (
    WorkflowBuilder("order", timeout_s=60)
    .add_step(
        "reserve",
        "reserve_stock",
        compensation="release_stock",
        compensation_retry={"max_attempts": 2, "backoff_s": 4, "jitter": False},
        retry={"max_attempts": 2, "backoff_s": 1.4, "jitter": False},
    )
    .add_step("ship", task("bank.ship"), retry=1)
    .build()
)
RUN, UNDO = Kind.RUN, Kind.UNDO


class History:
    """A saga's history under construction; each call gives the lines of one commit."""

    def __init__(self, workflow: Workflow = ORDER) -> None:
        self.workflow = workflow
        steps = workflow.names
        self.saga = new_saga(ID, workflow="order", version=workflow.version, steps=steps, now_ms=0)

    def __call__(self, *entries: Entry, error: BaseException | None = None, **how: Any) -> str:
        before = self.saga
        decision = fold(self.workflow, before, entries)
        self.saga = decision.saga
        plan = Commit("", "", "", 0, 0, before.state, self.saga.state)
        move = Move(self.workflow, decision, plan, entries=entries)
        return "\n".join(line.text(**how) for line in lines_of(move, error))

    def begun(self) -> History:
        """The first step is running from second 1 on."""
        self(Started(0), Claimed(1000, RUN, "reserve", 1, "n1"))
        return self

    def reserved(self) -> History:
        """The first step has succeeded, and the second one is running."""
        self.begun()(Succeeded(1250, RUN, "reserve", 1, "n1"), Claimed(1300, RUN, "ship", 1, "n2"))
        return self


def failed(at_ms: int, step: str, attempt: int, nonce: str, **more: Any) -> Failed:
    error = more.pop("error", Failure("KeyError", "'sku'"))
    return Failed(at_ms, more.pop("kind", RUN), step, attempt, nonce, error, **more)


def raised(file: Path, text: str) -> BaseException:
    """The error that a function of a user's file raises."""
    module = types.ModuleType("shop")
    exec(compile(text, str(file), "exec"), module.__dict__)
    try:
        module.work()
    except Exception as error:  # noqa: BLE001 - whatever it raises
        step = error.__traceback__
        return error.with_traceback(step and step.tb_next)  # without this very function
    raise AssertionError("it raises nothing")


def test_a_success_has_its_time_and_its_attempt() -> None:
    """The line omits the number of a first attempt."""
    history = History().begun()
    assert history(Succeeded(1250, RUN, "reserve", 1, "n1")) == (
        "order 3636fd8b  reserve  succeeded in 0.25 s"
    )
    assert started(ORDER, ID).text() == "order 3636fd8b  started"


def test_a_failure_says_which_attempt_of_how_many_where_and_what_follows(tmp_path: Path) -> None:
    """The line shows the innermost line of user code; the last attempt shows all of them."""
    file = tmp_path / "shop.py"
    file.write_text('def work():\n    return inner()\n\ndef inner():\n    return {}["sku"]\n')
    error = raised(file, file.read_text())
    history, told = History().begun(), classify(error).failure
    assert history(failed(2000, "reserve", 1, "n1", error=told), error=error) == (
        "order 3636fd8b  reserve  failed, attempt 1 of 2: KeyError: 'sku'"
        f" ({file}:5); again in 1.4 s"
    )
    history(
        TimerDue(3400, retry_timer(AttemptRef(RUN, "reserve", 1))),
        Claimed(3500, RUN, "reserve", 2, "n2"),
    )
    last = failed(4000, "reserve", 2, "n2", error=told)
    assert history(last, error=error).splitlines() == [
        f"order 3636fd8b  reserve  failed, attempt 2 of 2: KeyError: 'sku' ({file}:5)",
        f"    {file}:2, in work",
        "        return inner()",
        f"    {file}:5, in inner",
        '        return {}["sku"]',
        "order 3636fd8b  compensating",
    ]


def test_an_error_of_another_place_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """A sweep may decide while it handles an unrelated error."""
    history = History().begun()
    assert "(" not in history(failed(2000, "reserve", 1, "n1"), error=OSError("redis is away"))


def test_after_a_retry_by_a_person_an_attempt_keeps_its_number() -> None:
    """The number is that of `show` and `history`; the count of tries stands beside it."""
    history = History().reserved()
    history(failed(2000, "ship", 1, "n2", effect=FailureEffect.CLEAN))
    for attempt in (1, 2):
        history(Claimed(3000, UNDO, "reserve", attempt, f"u{attempt}"))
        history(failed(3100, "reserve", attempt, f"u{attempt}", kind=UNDO))
        history(TimerDue(9000, retry_timer(AttemptRef(UNDO, "reserve", attempt))))
    history(Requested(9100, Action.RETRY, "r1", "ada"))
    history(Claimed(9200, UNDO, "reserve", 3, "u3"))
    told = history(failed(9300, "reserve", 3, "u3", kind=UNDO))
    assert told.startswith(
        "order 3636fd8b  reserve  undo failed, attempt 3 (try 1 of 2): KeyError: 'sku'; again in"
    )


def test_what_is_not_tried_again_has_no_number_of_attempts() -> None:
    """A declared failure has one attempt, whatever the policy allows."""
    error = Failure("NonRetryableError", "no courier\x1b[2J")
    told = History().begun()(failed(2000, "reserve", 1, "n1", error=error, retryable=False))
    assert told.splitlines()[0] == (
        "order 3636fd8b  reserve  failed: NonRetryableError: no courier\\x1b[2J"
    )


def test_undo_parking_and_the_end() -> None:
    """A line about parked work names the command that shows the reason."""
    history = History().reserved()
    assert history(failed(2000, "ship", 1, "n2", effect=FailureEffect.CLEAN)) == (
        "order 3636fd8b  ship     failed: KeyError: 'sku'\norder 3636fd8b  compensating"
    )
    history(Claimed(2100, UNDO, "reserve", 1, "n3"))
    assert history(failed(2200, "reserve", 1, "n3", kind=UNDO)) == (
        "order 3636fd8b  reserve  undo failed, attempt 1 of 2: KeyError: 'sku'; again in 4.0 s"
    )
    history(
        TimerDue(6200, retry_timer(AttemptRef(UNDO, "reserve", 1))),
        Claimed(6300, UNDO, "reserve", 2, "n4"),
    )
    assert history(failed(62_000, "reserve", 2, "n4", kind=UNDO)) == (
        "order 3636fd8b  reserve  undo failed, parked, attempt 2 of 2: KeyError: 'sku';"
        " see multiagents explain 3636fd8b\n"
        "order 3636fd8b  failed after 1 min 02 s; an operator is needed;"
        " see multiagents explain 3636fd8b"
    )


def test_an_undo_that_succeeds_compensates() -> None:
    """A successful undo's line says "undone"."""
    history = History().reserved()
    history(failed(2000, "ship", 1, "n2", effect=FailureEffect.CLEAN))
    history(Claimed(2100, UNDO, "reserve", 1, "n3"))
    assert history(Succeeded(2150, UNDO, "reserve", 1, "n3")) == (
        "order 3636fd8b  reserve  undone in 0.05 s\norder 3636fd8b  compensated after 2.1 s"
    )


def test_lost_unroutable_and_asked_are_told() -> None:
    """Lines report a silent worker, a function without a worker and an operator's action."""
    lost = History().begun()(Lost(9000, RUN, "reserve", 1, "n1"))
    assert lost.startswith("order 3636fd8b  reserve  lost, attempt 1 of 2: LeaseLost: the worker")
    history = History()
    history(Started(0))
    away = Failure("UnknownWorker", "no worker has 'reserve_stock'")
    assert history(Unroutable(9000, RUN, "reserve", 1, away)).splitlines()[0] == (
        "order 3636fd8b  reserve  no worker, parked: UnknownWorker: no worker has 'reserve_stock';"
        " see multiagents explain 3636fd8b"
    )
    history = History().begun()
    assert history(Requested(1100, Action.PAUSE, "r1", by="ada", reason="bank is down")) == (
        "order 3636fd8b  pause asked by ada: bank is down\norder 3636fd8b  paused"
    )
    assert history(Requested(1200, Action.RESUME, "r2")) == (
        "order 3636fd8b  resume asked\norder 3636fd8b  resumed"
    )


def test_a_condition_without_a_value_is_told_as_the_failure_of_its_step() -> None:
    """No entry records it; after the pivot the step is parked."""
    typo = "input.budgte > 3"
    flow = WorkflowBuilder("order").add_step("reserve", "a", pivot=True)
    parked = History(flow.add_step("ship", "b", when=typo).build()).begun()
    flow = WorkflowBuilder("order").add_step("reserve", "a").add_step("ship", "b", when=typo)
    refused = History(flow.build()).begun()
    done = Succeeded(1250, RUN, "reserve", 1, "n1")
    guard = "guard it with has(input.budgte) && …"
    why = f"ConditionError: step 'ship': CEL {typo!r}: missing key 'budgte' in input; {guard}"
    assert refused(done).splitlines() == [
        "order 3636fd8b  reserve  succeeded in 0.25 s",
        f"order 3636fd8b  ship     failed: {why}",
        "order 3636fd8b  failed after 1.2 s",
    ]
    assert parked(done).splitlines()[1] == (
        f"order 3636fd8b  ship     failed, parked: {why}; see multiagents explain 3636fd8b"
    )


def test_a_deadline_says_so_whether_or_not_there_is_something_to_undo() -> None:
    """The line on which the saga turns carries the saga's own error."""
    history = History().begun()
    history(failed(2000, "reserve", 1, "n1", effect=FailureEffect.CLEAN))
    why = "SagaDeadline: not done in 60 s"
    over = history(TimerDue(60_000, DEADLINE))
    assert over == f"order 3636fd8b  failed after 1 min 00 s: {why}"
    history = History().reserved()
    assert history(TimerDue(60_000, DEADLINE)) == f"order 3636fd8b  compensating: {why}"


def test_a_person_who_ends_a_saga_is_named_once() -> None:
    """Only the action's line has the reason."""
    told = History().begun()(Requested(1100, Action.TERMINATE, "r1", by="ada", reason="a test"))
    assert told.splitlines()[0] == "order 3636fd8b  terminate asked by ada: a test"
    assert told.count("a test") == 1


def test_an_end_that_celery_refuses_to_send_on_is_told() -> None:
    """The line says that the saga needs attention."""
    history = History().begun()
    history(Requested(1100, Action.TERMINATE, "r1"))
    refused = Unroutable(1200, RUN, "", 0, Failure("KeyError", "'x'"), "link 1 (shop.mail) of T")
    assert history(refused) == (
        "order 3636fd8b  callback refused: link 1 (shop.mail) of T: KeyError: 'x';"
        " see multiagents explain 3636fd8b"
    )


def test_no_next_attempt_is_promised_sooner_than_a_sweep_can_begin_it() -> None:
    """A sleeping sweep may begin an attempt up to 1 s after it is due."""
    flow = WorkflowBuilder("order").add_step("reserve", "a", retry={"backoff_s": 0.03}).build()
    assert History(flow).begun()(failed(2000, "reserve", 1, "n1")).endswith("; again in about 1 s")


def test_a_report_that_means_nothing_any_more_is_not_told() -> None:
    """A second report of the same attempt gives no line."""
    history = History().reserved()
    assert history(Succeeded(1260, RUN, "reserve", 1, "n1")) == ""


def test_breakpoint_without_a_terminal_has_its_remedy() -> None:
    """The worker's report names the remedy, and the step is not retried."""
    verdict = classify(BdbQuit())
    report = failed(2000, "reserve", 1, "n1", error=verdict.failure, classes=verdict.classes)
    told = History().begun()(report)
    assert "reserve  failed: BdbQuit: " in told
    assert told.count("multiagents dev --pool solo") == 1


def test_an_undo_is_counted_by_what_its_error_allows() -> None:
    """A mistake in its code allows three tries, not the policy's ten."""
    flow = WorkflowBuilder("order").add_step("reserve", "a", compensation="b")
    history = History(flow.add_step("ship", "c", retry=1).build()).reserved()
    history(failed(2000, "ship", 1, "n2", effect=FailureEffect.CLEAN))
    history(Claimed(2100, UNDO, "reserve", 1, "n3"))
    mistake = failed(2200, "reserve", 1, "n3", kind=UNDO, classes=names_of(KeyError()))
    assert "undo failed, attempt 1 of 3: KeyError: 'sku'; again in " in history(mistake)


def test_on_a_terminal_the_word_has_its_colour() -> None:
    """Failures are red and successes green; other words have no colour."""
    history = History().begun()
    assert "\033[31mfailed\033[0m, attempt" in history(failed(2, "reserve", 1, "n1"), colours=True)
    history = History().begun()
    done = Succeeded(1250, RUN, "reserve", 1, "n1")
    assert "\033[32msucceeded\033[0m in" in history(done, colours=True)


def test_a_terminal_gets_a_line_broken_between_words() -> None:
    """Continuation lines are indented, and colour codes take no width."""
    error = Failure("NonRetryableError", "the bank refuses the card of this customer (shop.py:19)")
    failure = failed(2000, "reserve", 1, "n1", error=error, retryable=False)
    wanted = [
        "order 3636fd8b  reserve  failed: NonRetryableError: the bank refuses the",
        "      card of this customer (shop.py:19)",
    ]
    told = History().begun()(failure, columns=75)
    assert told.splitlines()[:2] == wanted
    coloured = History().begun()(failure, columns=75, colours=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == told


def test_own_code_is_neither_pythons_nor_a_librarys_nor_this_packages() -> None:
    """A shown place is in code that the reader can change."""
    assert is_users(__file__)
    assert not any(map(is_users, (pytest.__file__, types.__file__, Commit.__module__)))
    assert not is_users(sys.modules["multiagents"].__file__ or "")
    assert "<string>" not in own_files()
    assert __file__ in own_files([Path("order.yaml")])
    assert str(Path("order.yaml").absolute()) in own_files([Path("order.yaml")])
