"""Do lists, actions and advice tell dead letters apart by error?"""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

from multiagents import Orchestrator, WorkflowBuilder, worker
from multiagents.cli.commands.attention import laid_out
from multiagents.core.entries import Failure
from multiagents.core.states import Kind
from tests.support.command_line import cli
from tests.support.office import Office

CLOSED = Failure("BankDown", "closed until nine")
LOST = Failure("KeyError", "'amuont'")


@worker("by_error.do")
def do(context: Any) -> dict[str, Any]:
    return {}


ORDER = (
    WorkflowBuilder("by-error-order")
    .add_step("charge", "by_error.do", compensation="by_error.do")
    .add_step("mail", "by_error.do")
    .build()
)


def park(office: Office, error: Failure) -> str:
    """A saga whose undo is parked with this error."""
    saga_id = office.start(ORDER)
    office.succeed(saga_id, "charge")
    office.fail(office.claim(saga_id, "mail"))
    office.fail(office.claim(saga_id, "charge", Kind.UNDO), error=error)
    return saga_id


def listed(office: Office, **filters: Any) -> list[str]:
    return [row["transaction_id"] for row in office.runtime.call("dead_letters", **filters)]


def commands_in(text: str) -> list[list[str]]:
    """The commands on a terminal, as a shell reads them, without the program."""
    whole = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in whole if line.startswith("  multiagents")]


def advised(office: Office, **options: Any) -> list[list[str]]:
    rows = office.runtime.call("attention")
    return commands_in(laid_out(rows, width=80, **options))


def test_letters_are_found_by_a_part_of_their_error(office: Office) -> None:
    """The part matches type or message in any case, for one saga and in asyncio too."""
    closed, lost = park(office, CLOSED), park(office, LOST)
    assert listed(office) == [closed, lost]
    assert listed(office, error="CLOSED until") == [closed]
    assert listed(office, error="keyerror: 'amu") == [lost]
    assert listed(office, error="gone") == []
    assert listed(office, saga_id=lost, error="closed") == []

    async def ask() -> list[dict[str, Any]]:
        async with Orchestrator(ORDER, state_store=office.url) as orchestrator:
            rows: list[dict[str, Any]] = await orchestrator.dead_letters(error="bankdown")
            return rows

    assert [row["transaction_id"] for row in asyncio.run(ask())] == [closed]


def test_only_letters_with_that_error_are_settled(office: Office) -> None:
    """The operation and the command take the filter; named letters allow none."""
    closed, lost, other = (park(office, error) for error in (CLOSED, LOST, CLOSED))
    done = office.runtime.call(
        "settle_dead_letters", "skip", error="closed", limit=1, reason="by phone"
    )
    assert [row["transaction_id"] for row in done] == [closed]
    words = ("dead-letters", "retry", "--all", "--error", "until nine", "--yes", "--json")
    assert [row["transaction_id"] for row in cli(*words, url=office.url).lines] == [other]
    assert listed(office) == [lost]
    assert cli("dead-letters", "list", "--error", "nine", url=office.url).out == "no dead letters\n"
    empty = cli("dead-letters", "list", "--error", " ", url=office.url)
    assert (empty.code, "--error is empty" in empty.err) == (2, True)


def test_advice_for_one_error_leaves_the_others_alone(office: Office) -> None:
    """Each block's command settles only its own sagas."""
    closed, lost = ([park(office, error) for _ in range(2)] for error in (CLOSED, LOST))
    first, second = advised(office)
    assert first[-2:] == ["--error", "BankDown: closed until nine"]
    assert cli(*first, "--yes", url=office.url).code == 0
    assert listed(office) == lost
    assert cli(*second, "--yes", url=office.url).code == 0
    assert listed(office) == []
    assert closed


def test_advice_names_no_error_where_there_is_one_alone(office: Office) -> None:
    """A cut list may hide another error, so its advice names one."""
    for _ in range(2):
        park(office, CLOSED)
    [words] = advised(office)
    assert "--error" not in words
    [words] = advised(office, whole=False)
    assert words[-1] == "BankDown: closed until nine"


def test_an_error_that_another_contains_gets_a_command_for_each_saga(office: Office) -> None:
    """No text tells such letters apart."""
    short = [park(office, Failure("BankDown", "closed")) for _ in range(2)]
    long = [park(office, Failure("BankDown", f"closed {'and ' * 40}")) for _ in range(2)]
    first, second, third = advised(office)
    assert [first, second] == [["retry", saga_id, "charge"] for saga_id in short]
    assert len(third[-1]) <= 60
    assert cli(*third, "--yes", url=office.url).code == 0
    assert listed(office) == short
    assert long


def test_one_error_after_other_numbers_of_attempts_is_one_block(office: Office) -> None:
    """The block gives the attempts if they are equal."""
    again, once = park(office, CLOSED), park(office, CLOSED)
    office.runtime.call("retry", again)
    office.fail(office.claim(again, "charge", Kind.UNDO, 2), error=CLOSED)
    rows = office.runtime.call("attention")
    assert {row["error"]["message"] for row in rows} == {"closed until nine"}
    text = laid_out(rows, width=80)
    assert (again in text, once in text, "attempt" in text) == (True, True, False)
    assert "BankDown: closed until nine" in text


def test_what_a_letter_calls_is_a_function(office: Office) -> None:
    """JSON has it under both names, text under "function"."""
    saga_id = park(office, CLOSED)
    [letter] = office.runtime.call("dead_letters")
    assert letter["function"] == letter["worker"] == "by_error.do"
    shown = cli("dead-letters", "show", saga_id, url=office.url).out
    assert ("function" in shown, "worker" in shown) == (True, False)
