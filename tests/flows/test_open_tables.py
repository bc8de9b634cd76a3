"""Has each open table a row for each of its kinds?"""

from __future__ import annotations

import inspect
from inspect import Parameter
from typing import get_args

from multiagents.engine.commit_plan import ROWS
from multiagents.operations.operation import OPERATIONS
from multiagents.operations.service import SagaService
from multiagents.saga.commands import Command
from multiagents.storage.keys import DueKind, parse_due
from tests.support.one_process import Bench


def test_every_command_of_a_decision_has_a_row_in_the_commit() -> None:
    """A command without a row would be decided and never executed."""
    assert set(ROWS) == set(get_args(Command))


def test_every_kind_of_due_member_has_a_handler(bench: Bench) -> None:
    """A due member without a handler would stay due."""
    assert set(bench.sweeper().handlers) == set(DueKind)


def test_every_kind_of_due_member_is_read_as_it_was_written() -> None:
    """The letters are those that earlier versions have stored."""
    letters = {kind.letter: kind for kind in DueKind}
    assert set(letters) >= {"d", "g", "l", "o", "t", "x"}
    for kind in DueKind:
        parts = tuple("abcd"[: kind.parts])
        assert parse_due(kind.member("s|1", *parts)) == (kind, "s|1", parts)


def test_every_operation_is_a_method_of_the_service_with_a_text() -> None:
    """Each face finds method and docstring by the operation's name."""
    assert [name for name in OPERATIONS if not getattr(SagaService, name).__doc__] == []


def test_an_operation_of_one_saga_takes_its_id_first() -> None:
    """The command line completes the id in the first argument."""
    taking = set()
    for name in OPERATIONS:
        _, *given = inspect.signature(getattr(SagaService, name)).parameters.values()
        if given and given[0].name == "saga_id" and given[0].kind is not Parameter.KEYWORD_ONLY:
            taking.add(name)
    assert taking == {name for name, row in OPERATIONS.items() if row.of_one_saga}
