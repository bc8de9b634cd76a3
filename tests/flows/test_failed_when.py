"""Does a step's own condition judge its result once, for all readers?"""

from __future__ import annotations

import pytest

from multiagents import WorkflowBuilder, sagas, worker
from tests.support import basic_workers  # noqa: F401 - registers "echo" and others

ANSWERS: list[dict] = []


GIVEN: list[dict] = []


@worker("judged.next")
def following(context):
    GIVEN.append(dict(context))
    return {}


@worker("judged.undo")
def undo(context):
    GIVEN.append(context.step_result)
    return {}


@worker("answering")
def answering(context):
    return ANSWERS.pop(0)


def flow(**more):
    return (
        WorkflowBuilder("judged")
        .add_step("first", "echo", compensation="undo_echo")
        .add_step("ask", "answering", failed_when="result.status == 'unavailable'", **more)
        .build()
    )


def test_a_refused_result_is_tried_again(saga_lab):
    """Without ``failed_when`` it would be a success (rule 2).

    The history has the reason, and under ``outcome`` what the attempt may have done.
    """
    ANSWERS[:] = [{"status": "unavailable"}, {"status": "ok"}]
    saga_id = saga_lab.start(flow())
    saga = saga_lab.get(saga_id)
    assert saga["state"] == "completed"
    assert saga["step_results"]["ask"] == {"status": "ok"}
    failed = [event for event in sagas.history(saga_id) if event["type"] == "step_failed"]
    assert [event["data"]["error"]["type"] for event in failed] == ["ResultRefused"]
    assert [event["data"]["outcome"] for event in failed] == ["unknown"]


def test_a_result_that_stays_refused_fails_the_step(saga_lab):
    """The step's outcome is unknown, and the steps before it are undone."""
    ANSWERS[:] = [{"status": "unavailable"}] * 2
    saga_id = saga_lab.start(flow(retry=2))
    saga_lab.assert_undone(saga_id, "first")
    assert saga_lab.get(saga_id)["state"] == "compensated"


@pytest.mark.parametrize("settle", ["resolve", "skip"])
def test_nobody_is_given_a_refused_result(saga_lab, settle):
    """If an operator settles the step, it has an empty result or counts as not done."""
    ANSWERS[:], GIVEN[:] = [{"status": "unavailable", "payment": "p-1"}], []
    workflow = (
        WorkflowBuilder("settled")
        .add_step(
            "ask", "answering", failed_when="result.status == 'unavailable'", pivot=True, retry=1
        )
        .add_step("next", "judged.next")
        .build()
    )
    saga_id = saga_lab.start(workflow)
    getattr(sagas, settle)(saga_id, "ask", reason="done by hand")
    assert saga_lab.get(saga_id)["state"] == "completed"
    assert GIVEN == [{}]


def test_an_undo_is_given_the_refused_result(saga_lab):
    """The result may name the effect to undo."""
    refused = {"status": "unavailable", "payment": "p-1"}
    ANSWERS[:], GIVEN[:] = [refused], []
    options = {"failed_when": "result.status == 'unavailable'", "retry": 1}
    workflow = (
        WorkflowBuilder("undone").add_step(
            "ask", "answering", compensation="judged.undo", **options
        )
    ).build()
    saga_lab.start(workflow)
    assert [refused] == GIVEN


def test_a_condition_that_cannot_be_read_fails_the_step(saga_lab):
    """The error names the expression and the missing part."""
    ANSWERS[:] = [{"other": 1}] * 3
    saga = saga_lab.get(saga_lab.start(flow()))
    assert saga["error"]["type"] == "ConditionError"
    assert "status" in saga["error"]["message"]


@pytest.mark.parametrize("chosen", [True, False])
def test_the_condition_sees_which_steps_were_skipped(saga_lab, chosen):
    """A skipped step has a state and no result."""
    ANSWERS[:] = [{"status": "ok"}]
    refused = "steps.opt.state == 'succeeded' && has(steps.opt.result.echo)"
    workflow = (
        WorkflowBuilder("seeing")
        .add_step("opt", "echo", when="input.chosen")
        .add_step("ask", "answering", failed_when=refused, retry=1)
        .build()
    )
    saga = saga_lab.get(saga_lab.start(workflow, {"chosen": chosen}))
    assert saga["state"] == ("failed" if chosen else "completed")
    assert saga["steps"]["opt"]["state"] == ("succeeded" if chosen else "skipped")


@pytest.mark.parametrize(("settle", "error"), [("resolve", "ResultRefused"), ("skip", None)])
def test_the_condition_sees_what_was_done_by_hand(saga_lab, settle, error):
    """A resolved step counts as succeeded with an empty result."""
    ANSWERS[:] = [{"status": "unavailable"}, {"status": "ok"}]
    by_hand = "steps.ask.state == 'succeeded' && !has(steps.ask.result.status)"
    options = {"failed_when": "result.status == 'unavailable'", "pivot": True, "retry": 1}
    workflow = (
        WorkflowBuilder("seeing by hand")
        .add_step("ask", "answering", **options)
        .add_step("again", "answering", failed_when=by_hand, retry=1)
        .build()
    )
    saga_id = saga_lab.start(workflow)
    getattr(sagas, settle)(saga_id, "ask", reason="done by hand")
    shown = saga_lab.get(saga_id)["steps"]["again"]["error"]
    assert (shown and shown["type"]) == error
