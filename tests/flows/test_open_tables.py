"""Has each table of the engine a row for each kind of thing that it is about?"""

from __future__ import annotations

from typing import get_args

from multiagents.engine.commit_plan import ROWS
from multiagents.saga.commands import Command
from multiagents.storage.keys import DueKind, parse_due
from tests.support.one_process import Bench


def test_every_command_of_a_decision_has_a_row_in_the_commit() -> None:
    """A command without a row would be decided and never carried out."""
    assert set(ROWS) == set(get_args(Command))


def test_every_kind_of_due_member_has_a_handler(bench: Bench) -> None:
    """A due member without a handler would stay due."""
    assert set(bench.sweeper().handlers) == set(DueKind)


def test_every_kind_of_due_member_is_read_as_it_was_written() -> None:
    """The letters are those of state that earlier versions have stored."""
    letters = {kind.letter: kind for kind in DueKind}
    assert sorted(letters) == ["d", "g", "l", "o", "t", "x"]
    for kind in DueKind:
        parts = tuple("abcd"[: kind.parts])
        assert parse_due(kind.member("s|1", *parts)) == (kind, "s|1", parts)
