"""Are the messages, columns, times and codes of the command line exact?"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.cli.commands.explain import laid_out
from multiagents.cli.doctor.checks import due
from multiagents.cli.settlement_report import settled
from multiagents.cli.times import in_own_zone
from multiagents.core.entries import Failure
from multiagents.core.exceptions import InvalidWorkflow
from multiagents.core.texts import sentence
from multiagents.storage.health import DueHealth
from tests.support.command_line import cli
from tests.support.office import Office, open_office

CODES = re.compile(r"\x1b\[[0-9;]*m")
THREE = """
name: order
steps:
  - {name: a, worker: x, depends_on: [b]}
  - {name: c, worker: x, retry: {max_attempts: 0}, foo: 3}
"""


@worker("wording.do")
def do(context: Any) -> dict[str, Any]:
    return {}


ORDER = (
    WorkflowBuilder("wording-order")
    .add_step("reserve", "wording.do", compensation="wording.do")
    .add_step("charge", "wording.do")
    .build()
)


@pytest.fixture
def office(redis_url: str) -> Iterator[Office]:
    with open_office(redis_url) as found:
        yield found


@pytest.fixture
def oslo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put this computer into another zone than UTC."""
    monkeypatch.setenv("TZ", "Europe/Oslo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_no_color_means_no_codes_at_all(office: Office) -> None:
    """NO_COLOR removes bold and dim from tables and help; an empty NO_COLOR does not."""
    office.start(ORDER)
    shown = {"COLUMNS": "80", "TERM": "xterm-256color", "url": office.url}
    for words in (("list",), ("list", "--help")):
        plain = cli(*words, terminal=True, NO_COLOR="1", **shown)
        assert (plain.code, CODES.search(plain.out)) == (0, None)
    assert CODES.search(cli("list", terminal=True, NO_COLOR="", **shown).out)


def test_an_error_that_ends_with_a_full_stop_gets_no_second_one(office: Office) -> None:
    """This holds for the saga's error and for a dead letter's."""
    assert [sentence(text) for text in ("a", "a.", "a?")] == ["a.", "a.", "a?"]
    saga_id = office.start(ORDER)
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"), error=Failure("Refused", "Connection refused."))
    text = office.explain(saga_id)["text"]
    assert "Refused: Connection refused." in text
    assert ".." not in text


def test_explain_tells_times_of_this_computers_zone(office: Office, oslo: None) -> None:
    """`explain` shows short local times, as other commands do; programs get UTC."""
    noon = round(datetime.fromisoformat("2026-07-01T12:00:00+00:00").timestamp() * 1000)
    told = in_own_zone("since 2026-07-01 11:59:00 UTC (1 min ago)", noon)
    assert told == "since 13:59:00 (1 min ago)"
    assert in_own_zone("at 2026-01-02 03:04:05 UTC", noon) == "at 2026-01-02 04:04:05"
    saga_id = office.start(ORDER)
    assert " UTC " in office.explain(saga_id)["text"]
    assert "UTC" not in cli("explain", saga_id, url=office.url).out
    shown = laid_out(office.explain(saga_id), width=80, now_ms=office.runtime.clock.now_ms())
    assert "UTC" not in shown


def test_several_mistakes_stand_on_a_line_each(tmp_path: Path) -> None:
    """This holds for a started file and for a module that `dev` imports."""
    (tmp_path / "order.yaml").write_text(THREE)
    done = cli("start", str(tmp_path / "order.yaml"))
    head, *mistakes = done.err.splitlines()
    assert (done.code, head) == (2, f"error: {tmp_path}/order.yaml has 3 mistakes:")
    assert [line.startswith("  - order.yaml: order.steps[") for line in mistakes] == [True] * 3


def test_mistakes_of_an_imported_module_stand_on_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line begins with the place in the module."""
    code = (
        "from multiagents import WorkflowBuilder\n"
        'WorkflowBuilder("o").add_step("a", "x", depends_on=["b"], timeout_s=-1).build()\n'
    )
    (tmp_path / "wording_bad.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = cli("workflows", "list", MULTIAGENTS_IMPORTS="wording_bad")
    head, *mistakes = done.err.splitlines()
    assert re.search(r"wording_bad\.py:2: workflow 'o' has 2 mistakes:$", head)
    assert [line[:14] for line in mistakes] == ["  - o.steps[0]"] * 2


def test_a_name_that_nothing_else_could_be_meant_by_is_said_so() -> None:
    """The error lists no other steps where there are none."""
    with pytest.raises(InvalidWorkflow, match="unknown step 'b'; there is no other name"):
        WorkflowBuilder("o").add_step("a", "x", depends_on=["b"]).build()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("list", "--state", "runing"),
            "'--state': 'runing' is not one of",
        ),
        (("list", "--state", "runing"), "Did you mean 'running'?"),
        (("start", "order", '{"amount": 5}'), "The input of a saga stands after --input."),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(words: tuple[str, ...], says: str) -> None:
    """The error uses our own words, without the library's prefix."""
    done = cli(*words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert says.lower() in done.err.lower()
    assert "Value error" not in done.err


def test_where_nothing_can_be_asked_that_is_said(office: Office) -> None:
    """The error says that no action is possible, instead of an empty list."""
    saga_id = office.start(ORDER)
    office.runtime.call("terminate", saga_id)
    office.runtime.call("resolve", saga_id, reason="seen")
    done = cli("pause", saga_id, url=office.url)
    refused = f"error: cannot pause saga {saga_id}: it is failed"
    assert done.err == f"{refused}; no action is allowed now\n"


def test_a_column_that_is_asked_for_is_shown_though_it_is_empty(office: Office) -> None:
    """A missing column would look like a mistake of the list."""
    office.runtime.call("start", ORDER, {"sku": "A17"})
    header, line = cli("list", "--show", "sku", "--show", "to", url=office.url).out.splitlines()
    assert header.split()[:4] == ["SAGA", "SKU", "TO", "WORKFLOW"]
    assert line.split()[1:4] == ["A17", "-", "wording-order"]


def test_a_retry_that_has_failed_again_is_not_called_under_way() -> None:
    """The list shows it as parked, with the later time."""
    letter = {"kind": "undo", "step": "hold", "parked_at": "2026-01-01"}
    saga = {
        "transaction_id": "s",
        "state": "failed",
        "attention": [],
        "steps": {"hold": {"state": "succeeded", "compensation": {"state": "parked"}}},
    }
    told = settled("retry", [letter], [{**letter, "parked_at": "2026-01-02"}], saga)
    assert told == (
        "undo of 'hold' was tried again, failed and is parked again; saga s is failed, and still"
        " waits for an operator: the undo of 'hold' is parked"
    )


def test_doctor_says_what_the_due_set_holds() -> None:
    """The finding says that most items concern sagas that have ended."""
    told = due(DueHealth(84, 2, 1000), 2000).message
    assert told == ("84 items, 2 overdue: leases, retries, timeouts and deletions of ended sagas")
