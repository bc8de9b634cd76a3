"""Does the whole system keep the laws while everything around it fails?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from multiagents.orchestrator.sweeper import Sweeper
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard
from multiagents.storage.sagas import Guard
from multiagents.testing.laws import LawBroken
from multiagents.testing.simulated import NO_FAULTS
from multiagents.testing.simulator import simulate


@pytest.fixture
def edge(redis_url: str) -> Iterator[Edge]:
    found = Edge(redis_url)
    yield found
    found.close()


def test_every_history_comes_to_rest_within_the_laws(edge: Edge) -> None:
    """Deaths, frozen processes, lost replies and messages: 300 seeds."""
    summary = simulate(range(300), edge)
    assert summary.histories == 300
    assert {"completed", "compensated", "failed", "cancelled"} <= set(summary.states)
    assert summary.seen["reply lost"]
    assert summary.seen["died after a call"]


def test_lost_replies_alone_leave_nothing_behind(edge: Edge) -> None:
    """Each call may be carried out twice (E3, E4)."""
    simulate(range(1000, 1060), edge, faults=replace(NO_FAULTS, reply_lost=0.3))


def test_a_seed_always_gives_the_same_history(edge: Edge) -> None:
    """A seed that broke a law can be lived through again."""
    first, second = (simulate(range(40), edge) for _ in range(2))
    assert (first.calls, first.states, first.seen) == (second.calls, second.states, second.seen)


class ForgetfulSweeper(Sweeper):
    """Drops commands that were not claimed instead of sending them again."""

    def handle(self, item: Guard) -> Flow[None]:
        if item.member.startswith("o|"):
            yield from ask(store.drop(Shard(0), item))
        else:
            yield from super().handle(item)


def test_a_sweeper_that_forgets_is_found_out(edge: Edge) -> None:
    """The simulator can find something: a planted bug does not survive 300 seeds."""
    with pytest.raises(LawBroken, match="LawBroken: stuck"):
        simulate(range(300), edge, make_sweeper=ForgetfulSweeper)


class CarelessSweeper(Sweeper):
    """Drops leases that ran out instead of logging the loss."""

    def handle(self, item: Guard) -> Flow[None]:
        letter, saga_id, *_ = item.member.split("|")
        if letter == "l":
            keys = self._coordinator.keys(saga_id)
            yield from ask(store.drop(keys.shard, item))
        else:
            yield from super().handle(item)


def test_a_lease_that_nobody_ends_is_found_out(edge: Edge) -> None:
    """A lease that is dropped leaves its saga stuck once its worker has died."""
    with pytest.raises(LawBroken, match="LawBroken: stuck"):
        simulate(range(300), edge, make_sweeper=CarelessSweeper)
