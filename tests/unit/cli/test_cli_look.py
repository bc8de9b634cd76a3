"""Can an operator read, find and copy sagas on a terminal of 80 columns?"""

from __future__ import annotations

import io
import json
import re
from datetime import datetime
from typing import Any

import pytest
import redis

from examples.timeline import WORDS as TOLD_BY_EXAMPLES
from multiagents.cli.app import COMMANDS, GROUPS, function_of
from multiagents.cli.rows import Rows
from multiagents.cli.times import ago, ahead, clock, since_start
from multiagents.core import entries
from multiagents.core.states import Kind
from multiagents.operations.event_words import WORDS, happened, undo_word
from tests.support.command_line import cli, on_terminal
from tests.support.look import lines_of, start, undone
from tests.support.office import Office

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


EVERY_COMMAND: dict[tuple[str, ...], Any] = {
    **{(name,): function_of(place) for name, place, _ in COMMANDS},
    **{(group, name): each for group, rows, _ in GROUPS for name, each, _ in rows},
}


# ---- tables ----


def test_a_list_at_80_columns_has_whole_ids_and_short_times(office: Office) -> None:
    """Values that do not fit beside an id stand below it, with their names."""
    plain = start(office)
    failed = start(office, tags=["web", "urgent"], idempotency_key="order-17")
    undone(office, failed)
    lines = lines_of(on_terminal("list", url=office.url))
    assert lines[0].split() == ["SAGA", "WORKFLOW", "STATE", "CREATED", "TIME"]
    found = [match[0] for line in lines if (match := re.match(UUID, line))]
    assert found == [failed, plain]
    told = " ".join(lines)
    assert "key order-17 · tags web, urgent" in told
    assert "error charge: BankDown: the bank does not answer" in " ".join(told.split())
    assert not re.search(r"\d{4}-\d\d-\d\dT", told)
    assert "just now" in told or "s ago" in told


def test_columns_that_are_empty_in_all_rows_are_left_out(office: Office) -> None:
    """TAGS, KEY, ATTENTION and ERROR appear if a row has one; a wide window has one line a saga."""
    saga_id = start(office)
    header, line = cli("list", url=office.url).out.splitlines()
    assert header.split() == ["SAGA", "WORKFLOW", "STATE", "CREATED", "TIME", "STEP"]
    assert line.split()[:3] == [saga_id, "look-order", "running"]


def test_an_id_that_is_longer_than_the_window_is_folded_and_never_cut(office: Office) -> None:
    """Callers may choose ids of 200 bytes."""
    saga_id = start(office, task_id="x" * 100)
    told = "".join(lines_of(on_terminal("list", url=office.url)))
    assert saga_id in told
    assert "…" not in told


def test_a_last_column_of_text_is_wrapped_in_its_place() -> None:
    """The text wraps in its column if 24 columns remain; else it stands below with its name."""
    from rich.console import Console

    def printed(width: int) -> list[str]:
        console = Console(width=width, file=io.StringIO())
        with console.capture() as shown:
            console.print(Rows(("ID", "WHY"), [("a" * 10, "one two three four five six seven")]))
        return shown.get().splitlines()

    wrapped = [f"{'a' * 10}  one two three four five", f"{' ' * 12}six seven"]
    assert printed(36) == ["ID          WHY", *wrapped]
    assert printed(30) == ["ID", "a" * 10, "  why one two three four five", "  six seven"]


def test_no_table_ends_its_lines_with_blanks(office: Office) -> None:
    """In a narrower window a padded line would wrap into an empty one."""
    office.worker_runs("io", functions=("look.do",), host="celery@a-long-name-of-a-host")
    undone(office, start(office))
    for words in (("doctor",), ("workers",), ("list",), ("dead-letters", "list")):
        done = cli(*words, url=office.url)
        assert [line for line in done.out.splitlines() if line != line.rstrip()] == []
        assert "\x1b" not in done.out


def test_no_color_is_respected(office: Office) -> None:
    """States have colours on a terminal unless NO_COLOR is set."""
    start(office)
    shown = {"COLUMNS": "80", "TERM": "xterm-256color", "url": office.url}
    coloured = re.compile(r"\x1b\[3\d")
    assert coloured.search(cli("list", terminal=True, **shown).out)
    assert not coloured.search(cli("list", terminal=True, NO_COLOR="1", **shown).out)


# ---- one vocabulary ----


def test_every_type_of_entry_has_a_word() -> None:
    """The table of words covers steps, undos and the saga, and nothing else."""
    of_steps = {"claimed", "succeeded", "failed", "lost", "withdrawn", "unroutable"}
    types = {each.type for each in vars(entries).values() if hasattr(each, "at_ms")}
    assert types - of_steps == {"started", "timer", "asked"}
    named = {f"{kind}_{name}" for kind in ("step", "undo") for name in of_steps}
    assert set(WORDS) == named | {"end_unroutable", "started", "timer", "asked"}


def test_the_examples_use_the_same_words() -> None:
    """The examples name their events with the words of `history`."""
    assert {kind: WORDS[kind] for kind in TOLD_BY_EXAMPLES} == TOLD_BY_EXAMPLES


def test_history_tells_a_sagas_way_in_the_words_of_the_demo(office: Office) -> None:
    """Each line has time since start, step, attempt, event and reason; JSON keeps its types."""
    saga_id = start(office)
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "charge"), retryable=True)
    office.runtime.call("cancel", saga_id, by="ada", reason="customer called")
    office.fail(office.claim(saga_id, "charge", Kind.UNDO))
    held = office.claim(saga_id, "reserve", Kind.UNDO)
    office.runtime.host.engine.succeed(held, "{}", go_on=False)
    lines = lines_of(on_terminal("history", saga_id, url=office.url))
    assert lines[0].startswith("started at ")
    assert lines[2].split() == ["TIME", "STEP", "ATTEMPT", "WHAT", "HAPPENED", "WHY"]
    told = [re.split(r" {2,}", line.strip())[1:] for line in lines[3:]]
    boom = "BankDown: the bank does not"
    assert ["reserve", "1", "succeeded"] in told
    assert ["charge", "1", "failed", boom] in told
    assert ["saga", "-", "cancel asked", "by ada: customer called"] in told
    assert ["charge", "1", "undo failed, parked", boom] in told
    assert told[-3:] == [
        ["reserve", "1", "undo started"],
        ["reserve", "1", "undone"],
        ["saga", "-", "failed"],
    ]
    types = {event["type"] for event in cli("history", saga_id, "--json", url=office.url).lines}
    assert {"step_claimed", "step_succeeded", "step_failed", "asked", "undo_failed"} <= types


def test_timers_are_told_by_what_they_do() -> None:
    """A timer's line names the retry, its step or undo, or the deadline."""
    blank = {"type": "timer", "step": None, "attempt": None}
    told = [
        happened({**blank, "data": {"timer": timer}})[:3]
        for timer in ("run:charge:1", "undo:charge:2", "deadline")
    ]
    assert told == [
        ("charge", None, "retries"),
        ("charge", None, "undo retries"),
        ("saga", None, "deadline over"),
    ]
    assert [undo_word("succeeded"), undo_word("parked")] == ["undone", "parked"]


# ---- one saga ----


def test_show_has_each_steps_result_error_and_next_try(office: Office) -> None:
    """`show` shortens them; --full and --json have all of it."""
    saga_id = start(office, {"note": "n" * 500})
    held = office.claim(saga_id, "reserve")
    office.runtime.host.engine.succeed(held, json.dumps({"goods": "g" * 300}), go_on=False)
    office.fail(office.claim(saga_id, "charge"), retryable=True)
    lines = lines_of(on_terminal("show", saga_id, url=office.url))
    told = " ".join(" ".join(lines).split())
    assert 'result {"goods": "ggg' in told
    assert "(313 characters)" in told
    assert re.search(r"BankDown: the bank does not answer next try \(attempt 2\) in \d+ s", told)
    whole = cli("show", saga_id, "--full", url=office.url).out
    assert "g" * 300 in whole
    assert "n" * 500 in whole
    step = cli("show", saga_id, "--json", url=office.url).json["steps"]["charge"]
    assert (step["state"], step["retry_at"][-6:]) == ("retrying", "+00:00")


def test_times_are_short_and_never_in_the_future() -> None:
    """A small clock difference shows as now; only times of other days have a date."""
    assert [ago(0, ms) for ms in (-5, 900, 5000, 130_000, 7_300_000, 300_000_000)] == [
        *("just now", "just now", "5 s ago", "2 min ago", "2 h ago", "3 days ago")
    ]
    assert [ahead(ms, 10_000) for ms in (9000, 10_400, 22_000)] == ["now", "in 1 s", "in 12 s"]
    assert [since_start(ms, 0) for ms in (0, 1234, 61_000)] == ["0.00 s", "1.23 s", "1:01"]
    noon = round(datetime(2026, 11, 30, 12).timestamp() * 1000)
    assert clock(noon, noon + 1000) == "12:00:00"
    assert clock(noon, noon + 86_400_000) == "2026-11-30 12:00:00"


# ---- the beginning of an id ----


def test_the_beginning_of_an_id_is_taken_by_every_command(office: Office) -> None:
    """Every command takes an id's beginning if only one saga's id matches."""
    saga_id = start(office, task_id="c1a199b8-0e8f-487e-b62a-c280d72dd82e")
    start(office, task_id="c1a2ffff-0e8f-487e-b62a-c280d72dd82e")
    for words in (("show",), ("history",), ("explain",)):
        assert cli(*words, "c1a1", url=office.url).out != ""
        assert cli(*words, "c1a1", url=office.url).code == 0
    shown = cli("pause", "c1a199b8-0e", "--json", url=office.url).json
    assert (shown["transaction_id"], shown["state"]) == (saga_id, "paused")
    refused = cli("dead-letters", "show", "c1a1", url=office.url)
    assert "c1a1 has no dead letter" in refused.err


def test_a_beginning_that_several_ids_have_is_refused_with_their_names(office: Office) -> None:
    """The command changes none of them, and takes pattern characters literally."""
    ids = [start(office, task_id=f"c1a1{n}fff-0e8f-487e-b62a-c280d72dd82e") for n in range(7)]
    refused = cli("terminate", "c1a1", url=office.url)
    assert (refused.code, refused.out) == (2, "")
    assert sum(saga_id in refused.err for saga_id in ids) == 5
    assert "and others" in refused.err
    assert "needs at least 4 characters" in cli("show", "c1a", url=office.url).err
    for unknown in ("c1a1*", "c1a1????", "[c]1a1", "ffff"):
        assert "it never existed" in cli("show", unknown, url=office.url).err
    assert {row["state"] for row in cli("list", "--json", url=office.url).lines} == {"running"}


def test_a_whole_id_is_looked_up_without_a_search(office: Office) -> None:
    """A whole id, right or wrong, costs no read of the index."""
    saga_id = start(office)
    with redis.Redis.from_url(office.url) as client:
        client.config_resetstat()
        assert cli("show", saga_id, url=office.url).code == 0
        assert cli("show", f"{saga_id}:reserve:1", url=office.url).code == 0
        assert cli("show", "0" * 8 + saga_id[8:], url=office.url).code == 2
        counted = client.info("commandstats")
    assert counted.get("cmdstat_zscan", {"calls": 0})["calls"] == 0


def test_too_many_sagas_are_not_searched(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error gives their number and asks for the whole id."""
    from multiagents.operations import queries

    start(office, task_id="c1a199b8-0e8f-487e-b62a-c280d72dd82e")
    monkeypatch.setattr(queries, "MOST_SEARCHED", 0)
    refused = cli("show", "c1a1", url=office.url)
    assert "1 sagas are too many for a search" in refused.err
    assert "give the whole id" in refused.err


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_help_cuts_nothing_at_80_columns(words: tuple[str, ...]) -> None:
    """No option's name ends in dots, and paragraphs wrap at the window's width."""
    told = on_terminal(*words, "--help", url="redis://127.0.0.1:1/0")
    assert "…" not in told.out
    assert lines_of(told)
    wide = on_terminal(*words, "--help", url="redis://127.0.0.1:1/0", columns=1000)
    for paragraph in EVERY_COMMAND[words].__doc__.split("\n\n"):
        assert f" {' '.join(paragraph.split())} " in wide.out
