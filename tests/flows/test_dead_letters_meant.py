"""Does a bulk action settle the intended dead letters, and no others?

Other operators settle letters, and sagas park new ones, between the list and each letter's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from multiagents import NonRetryableError, WorkflowBuilder, worker
from multiagents.cli.commands import dead_letters as command_line
from multiagents.core.exceptions import InvalidInput
from multiagents.hosting.assembly import Host
from multiagents.storage.calls import Call
from multiagents.testing.lab import SagaLab
from tests.support.command_line import cli
from tests.support.eager_server import lab_on


@worker("meant.do")
def do(context: Any) -> dict[str, Any]:
    return {context.step: "done"}


WORKFLOW = (
    WorkflowBuilder("meant-order")
    .add_step("charge", "meant.do", compensation="meant.do")
    .add_step("ship", "meant.do")
    .build()
)


@pytest.fixture
def lab(redis_url: str) -> Iterator[SagaLab]:
    """A lab in which every undo of ``charge`` fails."""
    with lab_on(redis_url) as found:
        found.fail("ship", error=NonRetryableError("no courier"), attempt=None)
        found.fail("charge", error=NonRetryableError("bank is closed"), attempt=None, undo=True)
        yield found


@pytest.fixture
def host(lab: SagaLab) -> Host:
    """The operations on the lab's server; nothing runs as their consequence."""
    return lab._eager.host


@pytest.fixture
def parked(lab: SagaLab) -> list[str]:
    """Four sagas with a parked undo each, one second apart."""
    found = []
    for _ in range(4):
        found.append(lab.start(WORKFLOW, {}))
        lab.advance(1)
    return found


def again(lab: SagaLab, saga_id: str) -> None:
    """Retry a letter, which is then parked anew."""
    lab.advance(1)
    lab._eager.call("retry", saga_id)


def undo_of(host: Host, saga_id: str) -> str:
    return str(host.call("get", saga_id)["steps"]["charge"]["compensation"]["state"])


def overtaken(
    host: Host, others: Callable[[], None], *, looked: bool = True, **given: Any
) -> list[dict[str, Any]]:
    """``skip`` all letters, while others act just before the first action is recorded.

    Without ``looked``: just before the first saga from the index is read.
    """
    flow = host.service.settle_dead_letters("skip", reason="old", **given)
    reply, pending = None, [others]
    word = "advance" if looked else "append"
    while True:
        try:
            effect = flow.send(reply)
        except StopIteration as stop:
            return list(stop.value)
        if isinstance(effect, Call) and effect.script == word and pending:
            pending.pop()()
        reply = host.edge.execute(effect)


def test_letters_that_were_listed_are_settled_and_no_others(
    host: Host, lab: SagaLab, parked: list[str]
) -> None:
    """A re-parked letter, a settled one and later ones stay untouched."""
    seen = host.call("dead_letters", limit=2)
    again(lab, parked[0])
    host.call("resolve", parked[1], reason="paid in cash")
    rows = host.call("settle_dead_letters", "skip", letters=seen, reason="old")
    assert [(row["transaction_id"], row["done"]) for row in rows] == [
        (parked[0], False),
        (parked[1], False),
    ]
    assert "another one by now: the undo of step 'charge', parked at" in rows[0]["problem"]
    assert "no dead letter" in rows[1]["problem"]
    assert "input" not in rows[0]
    states = [undo_of(host, saga_id) for saga_id in parked]
    assert states == ["parked", "resolved", "parked", "parked"]


def test_a_letter_of_the_step_is_not_one_of_its_undo(host: Host, parked: list[str]) -> None:
    """An action on a parked step does not skip the step's undo."""
    (seen,) = host.call("dead_letters", saga_id=parked[0])
    rows = host.call("settle_dead_letters", "skip", letters=[{**seen, "kind": "step"}], reason="x")
    assert [row["done"] for row in rows] == [False]
    assert undo_of(host, parked[0]) == "parked"
    rows = host.call("settle_dead_letters", "skip", letters=[seen], reason="x", dry_run=True)
    assert [(row["done"], row["problem"]) for row in rows] == [(None, None)]
    rows = host.call("settle_dead_letters", "skip", letters=[seen], reason="x")
    assert [(row["done"], row["problem"]) for row in rows] == [(True, None)]
    assert undo_of(host, parked[0]) == "skipped"


def test_what_is_parked_anew_while_many_are_settled_is_left(
    host: Host, lab: SagaLab, parked: list[str]
) -> None:
    """Its age no longer matches, even if that happens after the last look at it."""

    def others() -> None:
        again(lab, parked[0])
        again(lab, parked[1])

    rows = overtaken(host, others, older_than_s=0.5)
    assert [row["done"] for row in rows] == [False, False, True, True]
    assert [undo_of(host, saga_id) for saga_id in parked] == [*["parked"] * 2, *["skipped"] * 2]


def test_what_the_index_told_is_compared_with_the_saga(
    host: Host, lab: SagaLab, parked: list[str]
) -> None:
    """A letter that matched in the index may have become younger since."""
    rows = overtaken(host, lambda: again(lab, parked[0]), looked=False, older_than_s=0.5)
    assert [row["transaction_id"] for row in rows] == parked[1:]
    assert undo_of(host, parked[0]) == "parked"


def test_what_others_have_settled_meanwhile_is_not_told_as_done(
    host: Host, parked: list[str]
) -> None:
    """Another operator's resolve is reported; another operator's skip is the wanted result."""
    rows = overtaken(host, lambda: host.call("resolve", parked[0], reason="paid"), limit=1)
    assert [row["done"] for row in rows] == [False]
    assert undo_of(host, parked[0]) == "resolved"
    rows = overtaken(host, lambda: host.call("skip", parked[1], reason="cents"), limit=1)
    assert [row["done"] for row in rows] == [True]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"letters": [{"transaction_id": "s", "step": "charge"}]}, "not a letter as dead_letters"),
        ({"letters": [], "limit": 2}, "leave out the filters"),
        ({"letters": [], "kind": "undo"}, "leave out the filters"),
    ],
)
def test_letters_are_given_as_they_were_listed(
    host: Host, given: dict[str, Any], says: str
) -> None:
    """Listed letters replace filters."""
    with pytest.raises(InvalidInput, match=says):
        host.call("settle_dead_letters", "retry", **given)


def test_the_command_line_settles_what_it_has_shown(
    host: Host, parked: list[str], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command leaves unshown letters alone, even if others settle the shown ones first."""

    def agreed(*_: object) -> bool:
        for saga_id in parked[:2]:
            host.call("resolve", saga_id, reason="paid in cash")
        return True

    monkeypatch.setattr(command_line, "_agreed", agreed)
    words = ("dead-letters", "skip", "--all", "--limit", "2", "--reason", "too old")
    told = cli(*words, url=redis_url)
    assert (told.code, told.out.splitlines()[-1]) == (1, "0 skipped")
    lines = told.err.splitlines()
    for line, saga_id in zip(lines[-2:], parked[:2], strict=True):
        assert line.startswith(f"not skipped: charge: cannot skip saga {saga_id}: ")
    assert not any(saga_id in told.err for saga_id in parked[2:])
    states = [undo_of(host, saga_id) for saga_id in parked]
    assert states == ["resolved", "resolved", "parked", "parked"]
