"""Do `show` and `explain` name the operator who settled a dead letter, and the saga's end?"""

from __future__ import annotations

import re
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.core.states import Kind
from multiagents.workflows.workflow import Workflow
from tests.support.command_line import cli
from tests.support.office import Office


@worker("settled.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def order() -> Workflow:
    """The first steps have undos; a later failure is parked."""
    return (
        WorkflowBuilder("settled-order")
        .add_step("reserve", "settled.do", compensation="settled.do")
        .add_step("charge", "settled.do", compensation="settled.do")
        .add_step("pay", "settled.do", pivot=True)
        .add_step("mail", "settled.do", when="input.sku != 'none'")
        .build()
    )


def parked(office: Office) -> str:
    """A failed saga with two parked undos."""
    saga_id: str = office.runtime.call("start", order(), {"sku": "A1"})
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"))
    for step in ("charge", "reserve"):
        office.fail(office.claim(saga_id, step, Kind.UNDO))
    return saga_id


WORDS = {
    "resolve": ("dead-letters", "resolve"),
    "skip": ("dead-letters", "skip"),
    "retry": ("retry",),
}
DONE = {"resolve": "resolved", "skip": "skipped", "retry": "retried"}


@pytest.mark.parametrize("command", WORDS)
def test_who_settled_a_dead_letter_and_why_is_told(office: Office, command: str) -> None:
    """`explain`, its JSON and `show` have operator and reason of each settled letter."""
    saga_id = parked(office)
    assert "\nsettled" not in cli("show", saga_id, url=office.url).out
    given = (saga_id, "charge", "--by", "ada", "--reason", "paid back in cash")
    assert cli(*WORDS[command], *given, url=office.url).code == 0
    done = f"undo of 'charge' {DONE[command]} by ada"
    reason = office.reason(saga_id, "settled")
    assert re.fullmatch(
        rf"Settled: {done} at \S+ \S+ UTC \(.+\) \('paid back in cash'\)\.", reason["text"]
    )
    [told] = reason["settled"]
    assert told.pop("at")
    assert told == {
        "step": "charge",
        "kind": "undo",
        "command": command,
        "by": "ada",
        "why": "paid back in cash",
    }
    shown = cli("show", saga_id, url=office.url).out
    assert re.search(rf"^settled +{done}, \S+, .+: paid back in cash$", shown, re.MULTILINE)


def test_the_last_word_on_a_letter_counts(office: Office) -> None:
    """One action may settle several letters; a letter parked again appears once."""
    saga_id: str = office.runtime.call("start", order(), {"sku": "A1"})
    for step in ("reserve", "charge", "pay"):
        office.succeed(saga_id, step)
    office.fail(office.claim(saga_id, "mail"))
    office.runtime.call("retry", saga_id, by="ada", reason="mended")
    office.fail(office.claim(saga_id, "mail", attempt=2))
    assert [each["command"] for each in office.reason(saga_id, "settled")["settled"]] == ["retry"]
    office.runtime.call("skip", saga_id, by="bob", reason="no mail")
    [told] = office.reason(saga_id, "settled")["settled"]
    assert (told["command"], told["by"], told["step"], told["kind"]) == (
        *("skip", "bob"),
        *("mail", "step"),
    )


def test_one_word_on_all_of_a_saga_is_told_of_each(office: Office) -> None:
    """For a terminated saga the text says that the matter is closed."""
    saga_id = parked(office)
    office.runtime.call("resolve", saga_id, by="ada", reason="cash")
    found = office.reason(saga_id, "settled")["settled"]
    assert [each["step"] for each in found] == ["reserve", "charge"]
    text = office.reason(saga_id, "settled")["text"]
    assert text.startswith("Settled: undo of 'reserve', undo of 'charge' resolved by ada at ")
    assert len(re.findall(r"^settled ", cli("show", saga_id, url=office.url).out, re.M)) == 1
    other = office.runtime.call("start", order(), {"sku": "A1"})
    office.runtime.call("terminate", other)
    office.runtime.call("resolve", other, by="ada", reason="cleared up")
    reason = office.reason(other, "settled")
    assert "its attention resolved by ada at" in reason["text"]
    assert [each["step"] for each in reason["settled"]] == [None]


def test_a_saga_ended_when_it_reached_its_end(office: Office) -> None:
    """A later action does not move the end in `show`, its JSON, `list` and `explain`."""
    saga_id = parked(office)
    before = office.runtime.call("get", saga_id)
    assert before["ended_at"] == before["updated_at"]
    now_ms = office.runtime.clock.now_ms()
    while office.runtime.clock.now_ms() < now_ms + 5:
        pass
    office.runtime.call("resolve", saga_id, reason="cash")
    after = office.runtime.call("get", saga_id)
    assert after["updated_at"] > before["updated_at"]
    assert (after["ended_at"], after["duration_s"]) == (before["ended_at"], before["duration_s"])
    shown = cli("show", saga_id, url=office.url).out
    assert len(re.findall(r"^(ended|updated) +\d", shown, re.MULTILINE)) == 2
