"""Does each dead letter stay until an action, and do refusals agree with `decide`?"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings

from multiagents.core.entries import Entry, Requested
from multiagents.core.ports import Waiting
from multiagents.core.states import Action as Ask
from multiagents.core.states import Kind, SagaState
from multiagents.saga.allowed import SETTLING, OneLetter, done, refusal
from multiagents.saga.dead_letters import changes, dead_letters_of, entries_of, parked_at
from multiagents.saga.decide import decide, fold
from multiagents.saga.state import Saga
from tests.support.strategies import worlds
from tests.support.world import World

_many = settings(
    deadline=None,
    max_examples=250,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_CLOSING = {*SETTLING, Ask.TERMINATE}
_FORWARD = {SagaState.RUNNING, SagaState.PAUSED, SagaState.COMPLETED}


def steps_of(world: World) -> list[tuple[Saga, Entry, Saga]]:
    """A history, decision by decision: before, entry, after."""
    found, saga = [], world.blank
    for entry in world.log:
        after = decide(world.workflow, saga, entry, entry.at_ms).saga
        found.append((saga, entry, after))
        saga = after
    return found


@_many
@given(worlds(most=60, asks=tuple(Ask)))
def test_a_dead_letter_leaves_only_by_a_word_in_the_log(world: World) -> None:
    """The action is retry, skip, resolve or terminate, also while the saga is undone."""
    world.commit()
    for before, entry, after in steps_of(world):
        gone = set(dead_letters_of(before)) - set(dead_letters_of(after))
        asked = isinstance(entry, Requested) and entry.action in _CLOSING
        turned = before.state in _FORWARD and after.state not in _FORWARD
        for _, kind in gone:
            assert asked or (kind is Kind.RUN and turned), (entry, gone)


@_many
@given(worlds(most=60, asks=tuple(Ask)))
def test_what_is_parked_asks_for_attention(world: World) -> None:
    """The commit therefore updates the index."""
    world.commit()
    for _, _, after in steps_of(world):
        assert after.attention or not any(dead_letters_of(after))


@_many
@given(worlds(most=60, asks=(*Ask, Ask.TERMINATE, Ask.TERMINATE)))
def test_a_terminated_saga_asks_for_attention_until_a_person_resolves_it(world: World) -> None:
    """The saga asks once, not each step that it left."""
    world.commit()
    for before, entry, after in steps_of(world):
        resolves = isinstance(entry, Requested) and entry.action is Ask.RESOLVE and not entry.step
        if before.terminated and before.attention:
            assert bool(after.attention) is not resolves, entry


@_many
@given(worlds(most=60, asks=tuple(Ask)))
def test_the_index_follows_from_the_changes_of_each_commit(world: World) -> None:
    """Any batches of entries give exactly these members and times."""
    world.commit()
    saga, index, left = world.blank, {}, list(world.log)
    while left:
        size = world.rng.randint(1, 4)
        decision = fold(world.workflow, saga, left[:size])
        for which, member, since in changes(saga, decision.saga, decision.changed):
            index[which, member] = since
        saga, left = decision.saga, left[size:]
        listed = {key for key, since in index.items() if since is not None}
        wanted = entries_of(saga)
        assert listed == {(each.which, each.member) for each in wanted}
        letters = [each for each in wanted if each.which == 1]
        assert letters == [Waiting(1, each.member, index[1, each.member]) for each in letters]


@_many
@given(worlds(asks=tuple(Ask)))
def test_what_is_refused_would_change_nothing_and_what_is_not_has_its_effect(world: World) -> None:
    """`refusal` and `done` agree with `decide` for every action and step at any time."""
    world.commit()
    before = world.saga
    for command in Ask:
        for step in ("", *before.steps) if command in SETTLING else ("",):
            entry = Requested(world.now_ms, command, "r", step=step)
            after = decide(world.workflow, before, entry, world.now_ms).saga
            why_not = refusal(world.workflow, before, command, step)
            if why_not:
                same = {"updated_at": before.updated_at, "attention": before.attention}
                assert replace(after, **same) == before, (command, step, why_not)
            elif not done(before, after, command, step):
                # Only an allowed cancel may have no effect, and it says so.
                assert command is Ask.CANCEL, (command, step)
                assert any("pivot" in note for note in after.attention)


@_many
@given(worlds(most=60, asks=tuple(Ask)))
def test_a_decision_on_one_letter_settles_that_one_or_is_refused(world: World) -> None:
    """The action may name the present letter of a run or undo, or an earlier one."""
    world.commit()
    before = world.saga
    here = {(step, kind): parked_at(before, step, kind) for step, kind in dead_letters_of(before)}
    for command in SETTLING:
        for step, kind in [(step, kind) for step, _ in here for kind in Kind]:
            for earlier_ms in (0, 1):
                since_ms = here.get((step, kind), 1) - earlier_ms
                letter: OneLetter = (kind, since_ms)
                entry = Requested(world.now_ms, command, "r", "", "", step, *letter)
                after = decide(world.workflow, before, entry, world.now_ms).saga
                meant = here.get((step, kind)) == since_ms
                why_not = refusal(world.workflow, before, command, step, letter)
                assert bool(why_not) is not meant, (command, step, letter)
                assert done(before, after, command, step, letter) is meant, (command, step, letter)
                left = {(step, kind): parked_at(after, step, kind) for step, kind in here}
                assert meant or left == here
