"""Does each row of the rules' tables fire, and does nothing happen beside them?

The draft of a decision refuses a move outside its table, so any history with such a move fails.
Here a random history or an example fires each row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from random import Random
from typing import Any, get_args

import pytest

from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Requested,
    Started,
    Succeeded,
    Withdrawn,
)
from multiagents.core.policies import RetryPolicy
from multiagents.core.states import Action as Ask
from multiagents.core.states import FailureEffect, Kind, SagaState, StepState, UndoState
from multiagents.lab.simulator.workflows import random_workflow
from multiagents.saga import draft
from multiagents.saga.actions import ACTIONS
from multiagents.saga.commands import FIRST_COMMANDS
from multiagents.saga.decide import RULES, decide
from multiagents.saga.draft import Draft
from multiagents.saga.state import Saga, StepRun, Work, new_saga
from multiagents.saga.transitions import BY_ENGINE, BY_OPERATOR, SAGA_MOVES, STEP_MOVES, UNDO_MOVES
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow
from tests.support.world import World

HISTORIES, LENGTH = 150, 28
TABLES: dict[str, Mapping[Any, str]] = {
    "SAGA_MOVES": SAGA_MOVES,
    "STEP_MOVES": STEP_MOVES,
    "UNDO_MOVES": UNDO_MOVES,
}
Row = tuple[str, Any, Any]
"""A table and a move in it; two tables have moves of the same names."""

# ---- rare histories ----

ONCE = RetryPolicy(max_attempts=1)
BOOM = Failure("Boom", "no")
A = Step(name="a", worker="w", compensation="u", retry=ONCE, compensation_retry=ONCE)
B = Step(name="b", worker="w", depends_on=("a",), retry=ONCE)
CHAIN = Workflow(name="chain", steps=(A, B))
PATIENT = Workflow(
    name="patient",
    steps=(A.model_copy(update={"compensation_retry": RetryPolicy(max_attempts=9)}), B),
)
UNTELLABLE = Workflow(
    name="untellable",
    steps=(
        Step(name="a", worker="w", pivot=True),
        Step(name="b", worker="w", depends_on=("a",), when="input.no_such_field > 1"),
    ),
)


def fresh(workflow: Workflow) -> Saga:
    return new_saga(
        "saga", workflow=workflow.name, version="v", steps=tuple(workflow.by_name), now_ms=1
    )


def ask(command: Ask, step: str = "") -> Requested:
    return Requested(1, command, f"{command}", step=step)


def claim(kind: Kind, step: str) -> Claimed:
    return Claimed(1, kind, step, 1, f"{kind}-{step}", "worker")


def success(kind: Kind, step: str) -> Succeeded:
    return Succeeded(1, kind, step, 1, f"{kind}-{step}")


def failure(kind: Kind, step: str) -> Failed:
    return Failed(1, kind, step, 1, f"{kind}-{step}", BOOM, effect=FailureEffect.CLEAN)


RUN_A, DONE_A = claim(Kind.RUN, "a"), success(Kind.RUN, "a")
LOST_A = Lost(1, Kind.RUN, "a", 1, "run-a")
UNDO_A, UNDONE_A = claim(Kind.UNDO, "a"), success(Kind.UNDO, "a")
NOT_UNDONE_A = failure(Kind.UNDO, "a")
BEGUN = (Started(1), RUN_A)
B_FAILS = (*BEGUN, DONE_A, claim(Kind.RUN, "b"), failure(Kind.RUN, "b"))
UNDOING = (*B_FAILS, UNDO_A)

EXAMPLES: dict[str, tuple[Workflow, tuple[Entry, ...]]] = {
    **{f"{command} of what has not begun": (CHAIN, (ask(command),)) for command in Ask},
    "late success after it was undone": (CHAIN, (*BEGUN, LOST_A, UNDO_A, UNDONE_A, DONE_A)),
    "late success after a cancellation": (
        CHAIN,
        (*BEGUN, ask(Ask.CANCEL), LOST_A, UNDO_A, UNDONE_A, DONE_A),
    ),
    "late success after it was undone by hand": (
        CHAIN,
        (*BEGUN, LOST_A, UNDO_A, NOT_UNDONE_A, ask(Ask.RESOLVE), DONE_A),
    ),
    "terminated before an undo was claimed": (
        CHAIN,
        (*B_FAILS, ask(Ask.TERMINATE), Withdrawn(1, Kind.UNDO, "a", 1, "w")),
    ),
    "terminated during an undo that fails": (CHAIN, (*UNDOING, ask(Ask.TERMINATE), NOT_UNDONE_A)),
    "terminated before the retry of an undo": (
        PATIENT,
        (*UNDOING, NOT_UNDONE_A, ask(Ask.TERMINATE)),
    ),
    "a condition that cannot be told past the pivot, retried in a pause": (
        UNTELLABLE,
        (*BEGUN, DONE_A, ask(Ask.PAUSE), ask(Ask.RETRY)),
    ),
}


# ---- what fires which row ----


class Noting(dict[Any, str]):
    """A table that records each move it judges."""

    def __init__(self, name: str, noted: list[Row]) -> None:
        super().__init__(TABLES[name])
        self.name, self.noted = name, noted

    def __contains__(self, move: object) -> bool:
        assert isinstance(move, tuple)
        self.noted.append((self.name, *move))
        return super().__contains__(move)


def histories() -> Iterator[tuple[Workflow, Saga, Iterable[Entry]]]:
    """The examples, and random histories with any operator actions."""
    for workflow, entries in EXAMPLES.values():
        yield workflow, fresh(workflow), entries
    parked = StepRun(Work(StepState.PARKED))
    left = Saga("saga", "chain", "v", SagaState.FAILED, steps={"a": parked})
    yield CHAIN, left, (ask(Ask.RETRY),)  # as an earlier version may have stored it
    for seed in range(HISTORIES):
        rng = Random(seed)
        world = World(random_workflow(rng), rng)
        for _ in range(LENGTH):
            world.live(asks=tuple(Ask))
        world.commit()
        yield world.workflow, world.blank, world.log


@cache
def fired() -> dict[Row, set[type[Entry]]]:
    """The types of entries that fire a row."""
    found, noted = defaultdict(set), list[Row]()
    with pytest.MonkeyPatch.context() as patch:
        for name in TABLES:
            patch.setattr(draft, name, Noting(name, noted))
        for workflow, saga, entries in histories():
            for entry in entries:
                noted.clear()
                saga = decide(workflow, saga, entry, entry.at_ms).saga
                for row in noted:
                    found[row].add(type(entry))
    return found


@pytest.mark.parametrize("name", TABLES)
def test_each_legal_move_happens(name: str) -> None:
    """No row is unused, and the diagrams show the rows."""
    happened = {(before, after) for table, before, after in fired() if table == name}
    assert happened == set(TABLES[name])


@pytest.mark.parametrize("name", TABLES)
def test_each_legal_move_has_the_cause_that_its_table_names(name: str) -> None:
    """ "Operator" rows are fired by actions, "engine" rows by other entries, too."""
    for (before, after), cause in TABLES[name].items():
        types = fired()[name, before, after]
        assert cause in (BY_ENGINE, BY_OPERATOR)
        by_operator = Requested in types
        assert by_operator if cause == BY_OPERATOR else types - {Requested}, (before, after, types)


def requests() -> Iterator[tuple[Workflow, Saga, Requested]]:
    """The operator actions in the histories, with the saga before each one."""
    for workflow, saga, entries in histories():
        for entry in entries:
            if isinstance(entry, Requested):
                yield workflow, saga, entry
            saga = decide(workflow, saga, entry, entry.at_ms).saga


def test_each_action_is_asked_for_in_each_state() -> None:
    """The table of actions is complete, and each of its answers occurs."""
    asked = {(entry.action, saga.state) for _, saga, entry in requests()}
    assert asked == set(ACTIONS) == set(product(Ask, SagaState))


def test_an_action_that_is_refused_changes_nothing() -> None:
    """Only a refused rollback after the pivot asks for attention."""
    refusals = 0
    for workflow, saga, entry in requests():
        answer = ACTIONS[entry.action, saga.state]
        if answer.unless(workflow, saga, entry):
            decision = decide(workflow, saga, entry, saga.updated_at)
            noted = decision.saga if entry.action is Ask.ROLLBACK else saga
            assert decision.saga == replace(saga, attention=noted.attention)
            assert not decision.commands
            refusals += 1
    assert refusals


def test_a_move_outside_its_table_is_refused() -> None:
    """This covers every two states of a saga, a step and an undo."""
    for old, new in product(SagaState, SagaState):
        moved = Draft(CHAIN, Saga("saga", "chain", "v", old))
        _judged(old is new or (old, new) in SAGA_MOVES, moved.move, new)
    for before, after in product(StepState, StepState):
        step = StepRun(Work(before))
        moved = Draft(CHAIN, Saga("saga", "chain", "v", steps={"a": step}))
        _judged((before, after) in STEP_MOVES, moved.move_work, "a", Kind.RUN, after)
    for begun, then in product(UndoState, UndoState):
        step = StepRun(undo=Work(begun))
        moved = Draft(CHAIN, Saga("saga", "chain", "v", steps={"a": step}))
        _judged((begun, then) in UNDO_MOVES, moved.move_work, "a", Kind.UNDO, then)


def _judged(legal: bool, move: Any, *where: Any) -> None:
    if legal:
        move(*where)
    else:
        with pytest.raises(AssertionError, match="illegal move"):
            move(*where)


def test_each_type_of_entry_has_its_rule() -> None:
    """No entry of a log lacks a rule."""
    assert set(RULES) == set(get_args(Entry))


def test_each_kind_of_step_has_its_first_command() -> None:
    """A new kind of target fails here until the table has a row for it."""
    name, task = get_args(Step.model_fields["worker"].annotation)
    assert set(FIRST_COMMANDS) == {get_args(name)[0] if get_args(name) else name, task}
