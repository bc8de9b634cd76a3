"""Do the rules of a saga hold over random workflows and histories?

The laws are those of `multiagents.lab.simulator.laws.saga`. They judge every decision of every
history below, and the final state of each.
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
    """The histories have failures, losses and late reports; the laws hold at each decision and at
    the end.
    """
    world.settle()


@_many
@given(worlds(asks=_STOPS))
def test_stopping_at_any_moment_undoes_or_parks(world: World) -> None:
    """Cancel and rollback come before, at and after the pivot."""
    world.settle()


@_many
@given(worlds(asks=_HOLDS))
def test_a_pause_holds_back_and_a_resume_loses_nothing(world: World) -> None:
    """All that became due in the pause goes on afterwards."""
    world.ask(Ask.RESUME)
    world.settle()


@_many
@given(worlds(most=60, asks=tuple(Ask)))
def test_no_command_of_an_operator_breaks_a_rule(world: World) -> None:
    """Any action may come at any time, for one step or all."""
    world.settle()


@_many
@given(worlds(asks=tuple(Ask)))
def test_dead_letters_can_always_be_closed(world: World) -> None:
    """If everything works, retries of all parked work close every saga."""
    world.settle()
    for command in (Ask.RESUME, *[Ask.RETRY] * len(world.saga.steps)):
        # A retried step may lead to one whose condition has no value, which is parked, too.
        world.ask(command)
        world.settle()
    assert world.saga.state in ENDED
    assert not has_dead_letters(world.saga)


@_many
@given(worlds(asks=tuple(Ask)))
def test_the_log_alone_gives_the_saga(world: World) -> None:
    """A saga is the fold of its log, in any batches."""
    world.commit()
    assert replayed(world.workflow, world.blank, world.log) == world.saga
