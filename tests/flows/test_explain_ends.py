"""Does `explain` say what an end or a pause left undone, in lines that fit a terminal?"""

from __future__ import annotations

import shlex
from typing import Any

from multiagents import WorkflowBuilder, worker
from multiagents.cli.commands.explain import laid_out
from multiagents.cli.times import in_own_zone
from multiagents.core.states import Kind
from multiagents.workflows.workflow import Workflow
from tests.support.command_line import cli
from tests.support.office import Office


@worker("explain_ends.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def order() -> Workflow:
    """Two steps with undo, one without, and a last one."""
    return (
        WorkflowBuilder("explain-order")
        .add_step("reserve", "explain_ends.do", compensation="explain_ends.do")
        .add_step("charge", "explain_ends.do", compensation="explain_ends.do")
        .add_step("mail", "explain_ends.do")
        .add_step("ship", "explain_ends.do", compensation="explain_ends.do")
        .build()
    )


def test_a_terminated_saga_says_what_is_left_as_it_is(office: Office) -> None:
    """It lists all steps left as they are; an operator's action closes the matter."""
    saga_id = office.start(order())
    for step in ("reserve", "charge", "mail"):
        office.succeed(saga_id, step)
    office.runtime.call("terminate", saga_id, by="ada", reason="a mess")
    text = office.reason(saga_id, "ended")["text"]
    assert "Left as they are: reserve, charge, mail (it has no compensation)." in text
    assert "nothing to undo" not in text
    resolve = f'multiagents dead-letters resolve {saga_id} --reason "..."'
    assert office.explain(saga_id)["commands"] == [resolve]
    office.runtime.call("resolve", saga_id, reason="cleared up")
    assert office.explain(saga_id)["commands"] == []


def test_what_has_no_compensation_is_left_too(office: Office) -> None:
    """The list includes steps without undo, and steps of unknown outcome as perhaps done."""
    saga_id = office.start(order())
    for step in ("reserve", "charge", "mail"):
        office.succeed(saga_id, step)
    office.fail(office.claim(saga_id, "ship"))
    for step in ("ship", "charge", "reserve"):
        held = office.claim(saga_id, step, Kind.UNDO)
        office.runtime.host.engine.succeed(held, "{}", go_on=False)
    text = office.reason(saga_id, "ended")["text"]
    assert "Undo: reserve succeeded, charge succeeded, ship succeeded." in text
    assert "Left as they are: mail (it has no compensation)." in text
    alone = WorkflowBuilder("explain-alone").add_step("mail", "explain_ends.do").build()
    saga_id = office.start(alone)
    office.fail(office.claim(saga_id, "mail"))
    text = office.reason(saga_id, "ended")["text"]
    assert "Left as they are: mail (perhaps done, it has no compensation)." in text


def test_where_nothing_was_done_there_is_nothing_to_undo(office: Office) -> None:
    """The saga was cancelled before its first step began."""
    saga_id = office.start(order())
    office.runtime.call("cancel", saga_id)
    assert "There was nothing to undo." in office.reason(saga_id, "ended")["text"]


def test_the_first_step_of_a_paused_saga_waits_for_the_resume_alone(office: Office) -> None:
    """The first step waits for no other; later ones wait for it."""
    saga_id = office.start(order())
    office.runtime.call("pause", saga_id)
    reason = office.reason(saga_id, "waiting")
    assert reason["text"] == (
        "'reserve' begins when the saga is resumed."
        " 'charge', 'mail', 'ship' begin when what comes before has ended."
    )
    assert reason["steps"] == ["reserve", "charge", "mail", "ship"]


def test_a_completed_saga_is_offered_what_makes_sense(office: Office) -> None:
    """`terminate` is not offered, because it would turn a success into a failure."""
    single = WorkflowBuilder("explain-single").add_step("a", "explain_ends.do").build()
    saga_id = office.start(single)
    office.succeed(saga_id, "a")
    refused = cli("cancel", saga_id, url=office.url)
    assert refused.err.rstrip().endswith("allowed actions: rollback")
    assert office.explain(saga_id)["commands"] == [f"multiagents rollback {saga_id}"]


def test_at_80_columns_no_id_and_no_command_is_broken(office: Office) -> None:
    """Paragraphs wrap between words; a long command continues as a shell accepts it."""
    saga_id = office.start(order())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"))
    office.fail(office.claim(saga_id, "charge", Kind.UNDO))
    told = office.explain(saga_id)
    lines = laid_out(told, width=80, now_ms=0).splitlines()
    assert max(map(len, lines)) <= 80
    set_in = "\n".join(line for line in lines if line.startswith("  "))
    typed = [shlex.split(line) for line in set_in.replace("\\\n", " ").splitlines()]
    assert typed == [shlex.split(command) for command in told["commands"]] != []
    assert set_in.count("\\\n") == 2
    prose = [line for line in lines if not line.startswith("  ")]
    assert sum(saga_id in line for line in prose) == 1
    assert "\n".join(lines).replace("\\\n", " ").split() == in_own_zone(told["text"], 0).split()
