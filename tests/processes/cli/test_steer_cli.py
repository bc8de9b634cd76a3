"""The command line over several sagas at once, and what it asks of a person before."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.cli.commands.actions import Meant, question
from multiagents.cli.settlement_report import settled
from multiagents.core.states import Kind
from multiagents.workflows.workflow import Workflow
from tests.support.command_line import Done, cli
from tests.support.office import Office
from tests.support.terminal import OnTerminal


@worker("steer.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def order() -> Workflow:
    return (
        WorkflowBuilder("steer-order")
        .add_step("reserve", "steer.do", compensation="steer.do")
        .add_step("charge", "steer.do", compensation="steer.do")
        .build()
    )


def state(office: Office, saga_id: str) -> str:
    return str(office.runtime.call("get", saga_id)["state"])


def asked(office: Office, saga_id: str) -> list[dict[str, Any]]:
    """What people have asked of it."""
    events = office.runtime.call("history", saga_id)
    return [event["data"] for event in events if event["type"] == "asked"]


# ---- several at once ----


def test_several_are_steered_by_one_word_with_its_reason(office: Office) -> None:
    """Each has operator and reason in its history; a repeated id counts once."""
    sagas = [office.start(order()) for _ in range(3)]
    for words, then in (
        (("pause",), "paused"),
        (("resume",), "running"),
        (("terminate",), "failed"),
    ):
        given = (*words, *sagas, sagas[0], "--reason", "bank holiday", "--by", "ada")
        done = cli(*given, url=office.url)
        assert done.code == 0, done.err
        assert done.out.splitlines() == [f"saga {saga_id} is {then}" for saga_id in sagas]
    for saga_id in sagas:
        found = asked(office, saga_id)
        assert [each["command"] for each in found] == ["pause", "resume", "terminate"]
        assert {(each["by"], each["reason"]) for each in found} == {("ada", "bank holiday")}


@pytest.mark.parametrize("command", ["pause", "cancel", "terminate"])
def test_a_saga_shows_who_brought_it_where_it_is_and_why(office: Office, command: str) -> None:
    """`show`, `explain` and the history name the operator; without one they name none."""
    saga_id = office.start(order())
    assert "asked" not in cli("show", saga_id, url=office.url).out
    cli(command, saga_id, "--by", "ada", "--reason", "bank holiday", url=office.url)
    shown = cli("show", saga_id, url=office.url).out
    assert re.search(rf"^asked +{command} by ada, \S+, .+: bank holiday$", shown, re.MULTILINE)
    assert "by ada at" in cli("explain", saga_id, url=office.url).out
    told = cli("history", saga_id, url=office.url).out
    assert "by ada: bank holiday" in told


def test_those_that_cannot_be_steered_are_listed_and_the_others_are(office: Office) -> None:
    """Exit code 1; for a program a line for each."""
    good, ended = office.start(order()), office.start(order())
    office.runtime.call("terminate", ended)
    done = cli("cancel", good, ended, "no-such-saga", url=office.url)
    assert (done.code, done.out) == (1, f"saga {good} is cancelled\n")
    refused, unknown, count = done.err.splitlines()
    assert refused.startswith(f"cannot cancel saga {ended}: it is failed;")
    assert unknown.startswith("no saga 'no-such-saga'")
    assert done.err.count(ended) == 1
    assert count == "cancel: 2 of 3 sagas were refused"
    lines = cli("rollback", good, ended, "--json", url=office.url).lines
    assert [line["transaction_id"] for line in lines] == [good, ended]
    assert all("cannot rollback" in line["problem"] for line in lines)
    assert [line["state"] for line in lines] == ["cancelled", "failed"]


def test_one_that_cannot_be_steered_has_its_whole_id_and_state(office: Office) -> None:
    """For a program, also where only the beginning of its id was given."""
    ended = office.start(order())
    office.runtime.call("terminate", ended)
    known, unknown = cli("pause", ended[:13], "zzzzz", "--json", url=office.url).lines
    assert (known["transaction_id"], known["state"]) == (ended, "failed")
    assert (unknown["transaction_id"], unknown["state"]) == ("zzzzz", None)


def test_one_alone_that_cannot_be_steered_is_wrong_use(office: Office) -> None:
    """As ever: one line, exit code 2."""
    done = cli("cancel", "no-such-saga", url=office.url)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


def test_of_an_id_its_beginning_will_do(office: Office) -> None:
    """As for every command; the answer has the whole id."""
    sagas = [office.start(order()) for _ in range(2)]
    done = cli("cancel", *(saga_id[:13] for saga_id in sagas), url=office.url)
    assert done.out.splitlines() == [f"saga {saga_id} is cancelled" for saga_id in sagas]


def test_a_script_is_asked_nothing(office: Office) -> None:
    """Where there is no terminal, with or without an answer to read."""
    for stdin in ("", "n\n"):
        saga_id = office.start(order())
        assert cli("terminate", saga_id, url=office.url, stdin=stdin).code == 0
        assert state(office, saga_id) == "failed"


# ---- the question ----


def test_the_question_says_which_sagas_and_what_becomes_of_them() -> None:
    """How many of each state; of very many some by name."""
    sagas = [
        Meant({"transaction_id": f"s{number}", "workflow": "w", "state": state})
        for number, state in enumerate(["running", "paused", "running"])
    ]
    text = question("terminate", sagas)
    assert text.splitlines() == [
        "  s0  w, running",
        "  s1  w, paused",
        "  s2  w, running",
        "They end as failed, and no step is undone.",
        "terminate 3 sagas (2 running, 1 paused)?",
    ]
    assert question("terminate", sagas[:1]).splitlines()[1:] == [
        "It ends as failed, and no step is undone.",
        "terminate this saga?",
    ]
    assert "  and 20 more\n" in question("cancel", sagas * 10)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """A command line whose person sees questions, and answers them with ``answer``."""
    monkeypatch.setattr("multiagents.cli.commands.actions.on_terminal", lambda: True)

    def run(*words: str, url: str, answer: str = "") -> Done:
        return cli(*words, url=url, stdin=answer)

    return run


def test_what_would_be_refused_is_refused_before_a_question(
    office: Office, typed: Callable[..., Done]
) -> None:
    """Of one saga: no question, and the commands as they are typed."""
    saga_id = office.start(order())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"))
    for step in ("charge", "reserve"):
        office.fail(office.claim(saga_id, step, Kind.UNDO))
    for command in ("rollback", "cancel", "terminate"):
        done = typed(command, saga_id, url=office.url, answer="y\n")
        assert (done.code, done.out, done.err) == (
            *(2, ""),
            f"error: cannot {command} saga {saga_id}: it is failed; allowed actions:"
            " retry, dead-letters skip, dead-letters resolve\n",
        )


def test_of_several_only_those_that_can_be_steered_are_asked_about(
    office: Office, typed: Callable[..., Done]
) -> None:
    """The others are listed once, before the question; without any left there is no question."""
    good, ended = office.start(order()), office.start(order())
    office.runtime.call("terminate", ended)
    done = typed("cancel", good, ended, "zzzzz", url=office.url, answer="y\n")
    assert (done.code, done.out) == (1, f"saga {good} is cancelled\n")
    assert "cancel this saga? [y/N]" in done.err
    assert done.err.index(ended) < done.err.index("[y/N]")
    assert (done.err.count(ended), done.err.count("'zzzzz'")) == (1, 1)
    assert done.err.endswith("cancel: 2 of 3 sagas were refused\n")
    none = typed("cancel", good, ended, url=office.url)
    assert (none.code, none.out, "[y/N]" in none.err) == (1, "", False)


def test_what_a_termination_leaves_at_work_is_said_before_and_after(
    office: Office, typed: Callable[..., Done]
) -> None:
    """In the question, `explain` and `attention`; when it has ended it is left as it is."""
    saga_id = office.start(order())
    office.succeed(saga_id, "reserve")
    held = office.claim(saga_id, "charge")
    done = typed("terminate", saga_id, url=office.url, answer="y\n")
    assert "still running, and may complete: 'charge'" in done.err
    left = "left as they are: reserve, charge (still at work, perhaps done)"
    text = office.reason(saga_id, "ended")["text"]
    assert left in text.replace("Left", "left")
    [row] = office.runtime.call("attention")
    assert left in row["reason"]
    office.runtime.host.engine.succeed(held, "{}", go_on=False)
    assert "Left as they are: reserve, charge." in office.reason(saga_id, "ended")["text"]


def test_an_undo_that_a_termination_leaves_at_work_is_said_too(
    office: Office, typed: Callable[..., Done]
) -> None:
    """It may be undone or not."""
    saga_id = office.start(order())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"))
    office.claim(saga_id, "charge", Kind.UNDO)
    done = typed("terminate", saga_id, url=office.url, answer="y\n")
    assert "may complete: the undo of 'charge'" in done.err
    [row] = office.runtime.call("attention")
    assert "charge (its undo is still at work)" in row["reason"]


def test_a_cancel_past_the_point_of_no_return_says_what_it_does(
    office: Office, typed: Callable[..., Done]
) -> None:
    """It undoes nothing; a no leaves the saga as it is."""
    paid = (
        WorkflowBuilder("steer-paid")
        .add_step("pay", "steer.do", pivot=True)
        .add_step("mail", "steer.do")
        .build()
    )
    saga_id = office.start(paid)
    office.succeed(saga_id, "pay")
    done = typed("cancel", saga_id, url=office.url, answer="n\n")
    assert "'pay', its point of no return, is or may be done: nothing is undone" in done.err
    assert (done.code, office.runtime.call("attention")) == (1, [])


@pytest.mark.processes
def test_a_person_at_a_terminal_is_asked_and_may_say_no(office: Office) -> None:
    """Nothing is changed without a yes; ``--yes`` spares the question."""
    saga_id = office.start(order())
    said, code = at_terminal(office.url, "terminate", saga_id, answer="n")
    assert "and no step is undone." in said
    assert f"{saga_id}  steer-order, running" in said
    assert (code, "nothing was changed" in said) == (1, True)
    assert state(office, saga_id) == "running"
    said, code = at_terminal(office.url, "terminate", saga_id, answer="y")
    assert (code, f"saga {saga_id} is failed" in said) == (0, True)
    other = office.start(order())
    said, code = at_terminal(office.url, "cancel", other, "--yes", answer="")
    assert (code, "[y/N]" in said) == (0, False)
    assert state(office, other) == "cancelled"


def at_terminal(url: str, *words: str, answer: str) -> tuple[str, int]:
    """What ``multiagents WORDS`` shows on a terminal where this is typed, and its exit code."""
    with OnTerminal(*words, url=url) as terminal:
        if answer:
            terminal.shows("[y/N]")
            terminal.press(f"{answer}\n".encode())
        code = terminal.ends()
        return terminal.text, code


# ---- what was settled ----


@pytest.mark.parametrize("command", ["skip", "resolve"])
def test_a_command_of_a_group_that_is_typed_alone_is_named_whole(command: str) -> None:
    """Beside `retry`, which stands alone, too."""
    done = cli(command, "4711")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"Did you mean `multiagents dead-letters {command}`?" in done.err
    assert "Did you mean" not in cli("frobnicate").err


def test_what_was_settled_and_what_is_left_are_told(office: Office) -> None:
    """A letter that another word has left is named; so is what else waits."""
    saga_id = office.start(order())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"))
    for step in ("charge", "reserve"):
        office.fail(office.claim(saga_id, step, Kind.UNDO))
    words = ("dead-letters", "resolve", saga_id, "charge", "--reason", "paid back")
    assert cli(*words, url=office.url).out == (
        f"undo of 'charge' marked resolved; saga {saga_id} is failed,"
        " and still waits for an operator: the undo of 'reserve' is parked\n"
    )
    skip = ("dead-letters", "skip", saga_id, "--reason", "cents", "--json")
    assert json.loads(cli(*skip, url=office.url).out)["state"] == "failed"


def test_attention_without_a_letter_is_said_to_be_closed(office: Office) -> None:
    """Of a terminated saga, say."""
    saga_id = office.start(order())
    office.runtime.call("terminate", saga_id)
    done = cli("dead-letters", "resolve", saga_id, "--reason", "cleared up", url=office.url)
    assert done.out == (
        f"its attention is closed; saga {saga_id} is failed, nothing else waits for an operator\n"
    )


def test_a_letter_that_is_parked_anew_is_another_one() -> None:
    """It was tried again, and waits since later."""
    letter = {"kind": "step", "step": "mail", "parked_at": "2026-01-01"}
    saga = {"transaction_id": "s", "state": "running", "attention": ["x"], "steps": {}}
    told = settled("retry", [letter], [{**letter, "parked_at": "2026-01-02"}], saga)
    assert told == (
        "step 'mail' was tried again, failed and is parked again; saga s is running, and still"
        " waits for an operator: x"
    )
