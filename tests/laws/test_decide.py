"""Do the rules of a saga hold over random workflows and histories?

The laws are those of `multiagents.lab.simulator.laws.saga`: every decision of every history below
is judged, and so is what each history has come to when nothing more can happen.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from multiagents.core.states import ENDED
from multiagents.core.states import Action as Ask
from multiagents.lab.simulator.laws.saga import has_dead_letters, replayed
from tests.support.strategies import worlds
from tests.support.world import World

_many = settings(
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_STOPS = (Ask.CANCEL, Ask.ROLLBACK)
_HOLDS = (Ask.PAUSE, Ask.RESUME, Ask.RESUME, Ask.CANCEL)


@_many
@given(worlds())
def test_every_saga_ends_or_is_parked_and_undoes_what_it_did(world: World) -> None:
    """Failures, losses and late reports alone: laws hold at each decision and at the end."""
    world.settle()


@_many
@given(worlds(asks=_STOPS))
def test_stopping_at_any_moment_undoes_or_parks(world: World) -> None:
    """Cancel and rollback, before, at and after the pivot."""
    world.settle()


@_many
@given(worlds(asks=_HOLDS))
def test_a_pause_holds_back_and_a_resume_loses_nothing(world: World) -> None:
    """Whatever came due while paused goes on afterwards."""
    world.ask(Ask.RESUME)
    world.settle()


@_many
@given(worlds(most=60, asks=tuple(Ask)))
def test_no_command_of_an_operator_breaks_a_rule(world: World) -> None:
    """All commands, at any time, for any step or for all."""
    world.settle()


@_many
@given(worlds(asks=tuple(Ask)))
def test_dead_letters_can_always_be_closed(world: World) -> None:
    """Retrying what is parked, in a world where all works, leaves no saga open."""
    world.settle()
    for command in (Ask.RESUME, *[Ask.RETRY] * len(world.saga.steps)):
        # Each retried step may lead to one whose condition cannot be told, which is parked too.
        world.ask(command)
        world.settle()
    assert world.saga.state in ENDED
    assert not has_dead_letters(world.saga)


@_many
@given(worlds(asks=tuple(Ask)))
def test_the_log_alone_gives_the_saga(world: World) -> None:
    """A saga is the fold of its log, whatever batches it was decided in."""
    world.commit()
    assert replayed(world.workflow, world.blank, world.log) == world.saga
