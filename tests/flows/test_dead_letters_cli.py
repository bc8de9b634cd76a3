"""Does the command line find, show and settle dead letters, singly and in bulk?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiagents import NonRetryableError, WorkflowBuilder, worker
from multiagents.cli.commands.dead_letters import seconds
from multiagents.cli.errors import CommandError
from multiagents.testing.lab import SagaLab
from tests.support.command_line import Done, cli
from tests.support.eager_server import lab_on


@worker("letters_cli.do")
def do(context: Any) -> dict[str, Any]:
    return {context.step: "done"}


@pytest.fixture
def parked(redis_url: str) -> Iterator[list[str]]:
    """Three sagas on the server: two with a parked undo, one with a parked step."""
    with lab_on(redis_url) as lab:
        yield [park(lab, "cli-order"), park(lab, "cli-order"), park(lab, "cli-mail", pivot=True)]


def park(lab: SagaLab, name: str, *, pivot: bool = False) -> str:
    undo = {} if pivot else {"compensation": "letters_cli.do"}
    workflow = (
        WorkflowBuilder(name)
        .add_step("charge", "letters_cli.do", pivot=pivot, **undo)
        .add_step("mail", "letters_cli.do")
        .build()
    )
    lab.fail("charge", error=NonRetryableError("bank [bold]closed[/bold]"), attempt=None, undo=True)
    lab.fail("mail", error=NonRetryableError("no address"), attempt=None)
    lab.advance(1)
    saga_id = lab.start(workflow, {"sku": "A1"})
    lab._eager.faults.clear()
    return saga_id


@pytest.fixture
def letters(redis_url: str, parked: list[str]) -> Any:
    """``multiagents dead-letters WORDS``."""

    def run(*words: str, **options: str) -> Done:
        return cli("dead-letters", *words, url=redis_url, **options)

    return run


def test_the_list_is_for_people_or_programs(letters: Any, parked: list[str]) -> None:
    """Each letter has a line, user text is no markup, and filters narrow the list."""
    rows = letters("list", "--json").lines
    assert [row["transaction_id"] for row in rows] == parked
    assert rows[0]["input"] == {"sku": "A1"}
    shown = letters("list", "--workflow", "cli-order", "--kind", "undo")
    assert (shown.code, "bank [bold]closed[/bold]" in shown.out) == (0, True)
    assert (parked[0] in shown.out, parked[2] in shown.out) == (True, False)
    assert letters("list", "--older-than", "2h").out == "no dead letters\n"
    assert len(letters("list", "--limit", "1", "--json").lines) == 1


def test_one_sagas_letters_are_shown_whole(letters: Any, parked: list[str]) -> None:
    """`show` has the function's input; a saga without letters is wrong use."""
    shown = letters("show", parked[0], "charge")
    assert (shown.code, '{"sku": "A1"}' in shown.out) == (0, True)
    assert letters("show", parked[2], "--json").json["step_results"] == {
        "charge": {"charge": "done"}
    }
    none = letters("show", parked[0], "mail")
    assert (none.code, "has no dead letter" in none.err) == (2, True)
    assert letters("show", "no-such-saga").code == 2


def test_one_is_settled_by_its_saga_and_step(
    letters: Any, parked: list[str], redis_url: str
) -> None:
    """The history has the reason and the operator, from option, setting or system."""
    skipped = letters("skip", parked[0], "charge", "--reason", "cents", "--by", "ada", "--json")
    assert (skipped.code, skipped.json["state"]) == (0, "failed")
    resolved = letters("resolve", parked[1], "--reason", "refunded", MULTIAGENTS_OPERATOR="night")
    ended = f"saga {parked[1]} is failed"
    assert resolved.out == (
        f"undo of 'charge' marked resolved; {ended}, nothing else waits for an operator\n"
    )
    retried = cli("retry", parked[2], "mail", url=redis_url)
    going = f"saga {parked[2]} is running, nothing else waits for an operator"
    assert (retried.code, retried.out) == (0, f"step 'mail' is tried again; {going}\n")
    who = []
    for saga_id in parked:
        events = cli("history", saga_id, "--json", url=redis_url).lines
        (asked,) = [event for event in events if event["type"] == "asked"]
        who.append((asked["data"]["command"], asked["data"]["by"], asked["step"]))
    assert who[:2] == [("skip", "ada", "charge"), ("resolve", "night", None)]
    assert who[2][0] == "retry"
    assert who[2][1]
    again = letters("skip", parked[0], "--reason", "cents")
    assert (again.code, "has no dead letter" in again.err) == (2, True)


def test_many_are_shown_and_need_a_yes(letters: Any, parked: list[str]) -> None:
    """ "No" gives exit code 1 and a missing terminal wrong use; both change nothing."""
    words = ("skip", "--workflow", "cli-order", "--all", "--reason", "old")
    assert letters(*words, stdin="n\n").code == 1
    unasked = letters(*words)
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    assert len(letters("list", "--json").lines) == 3
    agreed = letters(*words, stdin="y\n")
    assert (agreed.code, agreed.out.splitlines()[-1]) == (0, "2 skipped")
    assert parked[0] in agreed.out
    assert "skip 2 dead letters?" in agreed.err
    assert len(letters("list", "--json").lines) == 1


def test_many_are_settled_for_a_program(letters: Any, parked: list[str]) -> None:
    """A dry run shows the letters, ``--yes`` settles them, and an empty list is no error."""
    meant = letters("retry", "--all", "--dry-run", "--json").lines
    assert [(row["transaction_id"], row["done"]) for row in meant] == [
        (each, None) for each in parked
    ]
    some = letters("retry", "--all", "--limit", "1", "--yes", "--json").lines
    assert [(row["transaction_id"], row["done"]) for row in some] == [(parked[0], True)]
    assert len(letters("retry", "--all", "-y", "--json").lines) == 2
    assert (letters("retry", "--all", "--yes").code, letters("list").out) == (
        0,
        "no dead letters\n",
    )


def test_a_dry_run_of_one_saga_shows_its_letters(letters: Any, parked: list[str]) -> None:
    """The dry run changes nothing."""
    for word in ("retry", "skip", "resolve"):
        assert letters(word, parked[0], "--dry-run", "--json").json["step"] == "charge"
    assert len(letters("list", "--json").lines) == 3


def test_a_dry_run_needs_no_reason(letters: Any, parked: list[str]) -> None:
    """A dry run changes nothing, so it records no reason."""
    for word in ("skip", "resolve"):
        shown = letters(word, "--all", "--dry-run", "--json")
        assert [row["transaction_id"] for row in shown.lines] == parked
        assert letters(word, "--all", "--yes").code == 2
    assert len(letters("list", "--json").lines) == 3


def test_help_says_for_which_words_a_reason_is_required(redis_url: str) -> None:
    """The option's own help names those actions."""
    told = {
        word: " ".join(cli("dead-letters", word, "--help").out.replace("│", " ").split())
        for word in ("retry", "skip", "resolve")
    }
    required = "Required, except with --dry-run; kept in the saga's history."
    assert [required in text for text in told.values()] == [False, True, True]
    assert "The reason; kept in the saga's history." in told["retry"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("retry",), "which dead letters"),
        (("retry", "ID", "--all"), "not both"),
        (("retry", "ID", "--workflow", "w"), "filters need --all"),
        (("skip", "--all"), "needs a reason"),
        (("resolve", "ID"), "needs a reason"),
        (("list", "--kind", "run"), "step, undo"),
        (("list", "--older-than", "soon"), "expected a time"),
        (("list", "--older-than", "5"), "expected a time with its unit: 90s, 30m, 2h or 7d"),
    ],
)
def test_wrong_use_says_what_is_right(redis_url: str, words: tuple[str, ...], says: str) -> None:
    """Exit code 2 and one line."""
    done = cli("dead-letters", *words, url=redis_url)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err


@pytest.mark.parametrize(
    ("text", "wanted"), [("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604_800)]
)
def test_ages_are_written_as_people_write_them(text: str, wanted: float) -> None:
    """An age has a unit, as in `list --since`."""
    assert seconds(text) == wanted
    for wrong in (f"-{text}", text[:-1]):
        with pytest.raises(CommandError):
            seconds(wrong)


def test_the_list_is_mended(letters: Any, parked: list[str]) -> None:
    """`reindex` changes nothing in a sound list."""
    assert letters("reindex").out == "3 sagas checked: 0 added, 0 removed\n"
    assert letters("reindex", "--json").json == {"sagas": 3, "added": 0, "removed": 0}


def test_doctor_counts_by_the_index(parked: list[str], redis_url: str) -> None:
    """The finding counts sagas and letters."""
    found = {c["name"]: c for c in cli("doctor", "--json", url=redis_url).json["checks"]}
    assert found["attention"]["message"].startswith("3 sagas wait for an operator")
    assert found["dead letters"]["message"].startswith("3 steps and undos are parked")
