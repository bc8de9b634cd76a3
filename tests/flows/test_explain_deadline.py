"""Does `explain` say what a saga's deadline will do, and nothing else?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.core.entries import TimerDue
from multiagents.core.states import ENDED, SagaState, StepState
from multiagents.operations.explain.saga import Situation, explanation
from multiagents.saga.commands import DEADLINE
from multiagents.saga.decide import fold
from multiagents.saga.draft import evolve
from multiagents.saga.state import Saga
from multiagents.storage import keys as k
from multiagents.workflows.workflow import Workflow
from tests.support.office import Office

STARTED_MS = 1_700_000_000_000
DEADLINE_MS = STARTED_MS + 60_000


def timed() -> Workflow:
    """A step with undo, a pivot and a step after it."""
    return (
        WorkflowBuilder("explain-timed", timeout_s=60)
        .add_step("reserve", "deadline.do", compensation="deadline.do")
        .add_step("pay", "deadline.do", pivot=True)
        .add_step("mail", "deadline.do", retry=1)
        .build()
    )


@worker("deadline.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def told(saga: Saga, workflow: Workflow) -> list[dict[str, Any]]:
    """The text about the deadline."""
    due = {k.due_timer(saga.id, DEADLINE): DEADLINE_MS}
    given = explanation(Situation(saga, workflow, STARTED_MS, due), ())
    return [reason for reason in given["reasons"] if reason["code"] == "deadline"]


# ---- each of these brings a saga further ----


def pause(office: Office, saga_id: str) -> None:
    office.runtime.call("pause", saga_id)


def reserve(office: Office, saga_id: str) -> None:
    office.succeed(saga_id, "reserve")


def fail_to_reserve(office: Office, saga_id: str) -> None:
    office.fail(office.claim(saga_id, "reserve"))


def fail_to_pay(office: Office, saga_id: str) -> None:
    office.fail(office.claim(saga_id, "pay"))


def begin_to_pay(office: Office, saga_id: str) -> None:
    office.claim(saga_id, "pay")


def pay(office: Office, saga_id: str) -> None:
    office.succeed(saga_id, "pay")


def park(office: Office, saga_id: str) -> None:
    office.fail(office.claim(saga_id, "mail"))


Act = Callable[[Office, str], None]


@pytest.mark.parametrize(
    ("acts", "state", "says"),
    [
        ((), "running", "; then what it did is undone, unless its point of no return, step 'pay',"),
        ((pause,), "paused", "then what it did is undone"),
        ((reserve,), "running", "unless its point of no return, step 'pay', has begun by then."),
        ((reserve, begin_to_pay), "running", "step 'pay', may be passed, nothing is undone then"),
        ((reserve, pay), "running", "step 'pay', is passed, nothing is undone then: it only"),
        ((reserve, pay, park), "running", "step 'pay', is passed, nothing is undone then"),
        ((reserve, fail_to_pay), "running", "step 'pay', may be passed, nothing is undone then"),
        ((fail_to_reserve,), "compensating", None),
    ],
)
def test_what_is_said_is_what_the_deadline_does(
    office: Office, acts: tuple[Act, ...], state: str, says: str | None
) -> None:
    """It has an ``at`` if the saga will be undone, none if not, and is absent if moot."""
    saga_id = office.start(timed())
    for act in acts:
        act(office, saga_id)
    saga, workflow = office.current(saga_id)
    after = fold(workflow, saga, [TimerDue(saga.created_at + DEADLINE_MS, DEADLINE)]).saga
    stops = bool(after.halting) or after.state is not saga.state
    reasons = [each for each in office.explain(saga_id)["reasons"] if each["code"] == "deadline"]
    assert (saga.state.value, len(reasons)) == (state, int(says is not None))
    assert [bool(reason["at"]) for reason in reasons] == [stops] * len(reasons)
    assert all(says in reason["text"] and reason["deadline"] for reason in reasons if says)


@pytest.mark.parametrize("halting", ["cancel", "deadline"])
def test_a_saga_that_is_about_to_stop_is_told_of_no_deadline(office: Office, halting: str) -> None:
    """Its stop only waits for the pivot, so the deadline changes nothing."""
    saga_id = office.start(timed())
    saga, workflow = office.current(saga_id)
    saga = evolve(saga, {"halting": halting})
    assert told(saga, workflow) == []
    assert (
        fold(workflow, saga, [TimerDue(saga.created_at + DEADLINE_MS, DEADLINE)]).saga.halting
        == halting
    )


def test_an_ended_saga_is_told_of_no_deadline(office: Office) -> None:
    """This holds for every outcome, also by an operator's action."""
    saga_id = office.start(timed())
    office.runtime.call("terminate", saga_id)
    saga, workflow = office.current(saga_id)
    assert (saga.state, told(saga, workflow)) == (SagaState.FAILED, [])
    for state in ENDED:
        assert told(evolve(saga, {"state": state}), workflow) == []


def test_a_point_of_no_return_that_is_skipped_holds_up_nothing(office: Office) -> None:
    """With a skipped pivot completed steps are undone, as without one."""
    saga_id = office.start(timed())
    saga, workflow = office.current(saga_id)
    pay = saga.steps["pay"]
    skipped = evolve(pay, {"run": evolve(pay.run, {"state": StepState.SKIPPED})})
    (reason,) = told(evolve(saga, {"steps": {**saga.steps, "pay": skipped}}), workflow)
    assert reason["text"].endswith("; then what it did is undone.")
