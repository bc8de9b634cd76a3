"""What does a second pause or cancel do, and what is printed before an action?"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.core.entries import Requested
from multiagents.core.states import Action, Kind
from tests.support.command_line import Done, cli
from tests.support.office import Office


@worker("repeated.do")
def do(context: Any) -> dict[str, Any]:
    return {}


ORDER = (
    WorkflowBuilder("repeated-order")
    .add_step("reserve", "repeated.do", compensation="repeated.do")
    .add_step("charge", "repeated.do", compensation="repeated.do")
    .build()
)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """A command line whose user answers each question with ``answer``."""
    monkeypatch.setattr("multiagents.cli.commands.actions.on_terminal", lambda: True)

    def run(*words: str, url: str, answer: str = "") -> Done:
        return cli(*words, url=url, stdin=answer)

    return run


def operators(office: Office, saga_id: str) -> list[str]:
    events = office.runtime.call("history", saga_id)
    return [event["data"]["by"] for event in events if event["type"] == "asked"]


def test_the_first_pause_stands(office: Office) -> None:
    """Its operator and reason stay; the second pause is reported and not in the history."""
    saga_id = office.start(ORDER)
    office.runtime.call("pause", saga_id, by="ada", reason="the bank is down")
    done = cli("pause", saga_id, "--by", "bob", "--reason", "lunch", url=office.url)
    assert (done.code, done.out) == (
        0,
        f"saga {saga_id} was already paused by ada (the bank is down); nothing was changed\n",
    )
    assert cli("pause", saga_id, "--by", "bob", "--json", url=office.url).json["state"] == "paused"
    assert operators(office, saga_id) == ["ada"]
    [row] = office.runtime.call("attention")
    assert (row["by"], row["why"]) == ("ada", "the bank is down")
    office.runtime.call("resume", saga_id)
    office.runtime.call("pause", saga_id, by="bob", reason="lunch")
    assert office.runtime.call("attention")[0]["by"] == "bob"


def test_the_first_cancel_stands(office: Office, typed: Callable[..., Done]) -> None:
    """During the undo a second cancel asks no question."""
    saga_id = office.start(ORDER)
    office.succeed(saga_id, "reserve")
    office.runtime.call("cancel", saga_id, by="ada", reason="customer called")
    done = typed("cancel", saga_id, url=office.url)
    assert (done.code, done.err, done.out) == (
        *(0, ""),
        f"saga {saga_id} was already cancelled by ada (customer called) and is compensating;"
        " nothing was changed\n",
    )
    assert operators(office, saga_id) == ["ada"]


def test_of_two_pauses_at_once_the_one_that_held_it_is_told(office: Office) -> None:
    """Both are in the log, because each found the saga running."""
    saga_id = office.start(ORDER)
    for number, name in enumerate(("ada", "bob")):
        pause = Requested(office.runtime.clock.now_ms(), Action.PAUSE, f"n{number}", name, "", "")
        office.runtime.edge.run(office.runtime.host.coordinator.append(saga_id, pause))
    assert operators(office, saga_id) == ["ada", "bob"]
    assert office.runtime.call("attention")[0]["by"] == "ada"
    assert "paused by ada" in office.reason(saga_id, "paused")["text"]


def test_a_cancel_says_what_is_still_at_work(office: Office, typed: Callable[..., Done]) -> None:
    """The question follows a list of running steps and undos."""
    saga_id = office.start(ORDER)
    office.succeed(saga_id, "reserve")
    office.claim(saga_id, "charge")
    done = typed("cancel", saga_id, url=office.url, answer="n\n")
    assert "still at work, and let end first: 'charge'" in done.err
    other = office.start(ORDER)
    office.succeed(other, "reserve")
    office.fail(office.claim(other, "charge"))
    office.claim(other, "charge", Kind.UNDO)
    done = typed("cancel", other, url=office.url, answer="n\n")
    assert "let end first: the undo of 'charge'" in done.err


def test_several_sagas_are_retried_by_their_ids(office: Office) -> None:
    """A second argument that is no whole id is a step; other mixtures are wrong use."""
    sagas = [office.start(ORDER) for _ in range(3)]
    for saga_id in sagas:
        office.succeed(saga_id, "reserve")
        office.fail(office.claim(saga_id, "charge"))
        office.fail(office.claim(saga_id, "charge", Kind.UNDO))
    done = cli("retry", *sagas[:2], url=office.url)
    assert (done.code, done.out.count("undo of 'charge' is tried again")) == (0, 2)
    partly = cli("retry", sagas[0], sagas[2], "--json", url=office.url)
    assert [line["transaction_id"] for line in partly.lines] == [sagas[0], sagas[2]]
    assert (partly.code, "problem" in partly.lines[0]) == (1, True)
    wrong = cli("retry", sagas[0], "charge", "reserve", url=office.url)
    assert (wrong.code, "whole ids of several" in wrong.err) == (2, True)
    for word in ("retry", "skip"):
        words = ("dead-letters", word, sagas[0], sagas[1], "--reason", "x")
        told = cli(*words, url=office.url)
        assert (told.code, "is a saga's id, and the second word is a STEP" in told.err) == (2, True)


@pytest.mark.parametrize(
    "line",
    [
        "list --state failed --state paused",
        "list --workflow a --workflow b",
        "dead-letters list --step a --step b",
        "pause ID --reason a --reason b",
        "start order --input {} -i {}",
    ],
)
def test_a_second_value_of_an_option_is_refused(line: str) -> None:
    """It would replace the first silently; repeatable options and flags are fine."""
    done = cli(*shlex.split(line))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "takes one value, and is given 2 times" in done.err
    repeated = cli("list", "--input", "a=1", "--input", "b=2", "--json", "--json")
    assert "cannot reach the server" in repeated.err


def test_help_names_no_type_of_a_flag() -> None:
    """A flag takes no value."""
    columns = {"COLUMNS": "100", "TERM": os.environ.get("TERM", "dumb")}
    for words in (("list",), ("dev",), (), ("dead-letters",)):
        assert "bool" not in cli(*words, "--help", **columns).out
