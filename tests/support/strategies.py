"""Which histories do the laws try?"""

from __future__ import annotations

from hypothesis import strategies as st

from multiagents.core.states import Action as Ask
from multiagents.lab.simulator.workflows import random_workflow
from tests.support.world import World


@st.composite
def worlds(draw: st.DrawFn, *, most: int = 40, asks: tuple[Ask, ...] = ()) -> World:
    """A saga within a random history; its open work has not settled."""
    rng = draw(st.randoms(use_true_random=False))
    world = World(random_workflow(rng, naming=0.3), rng)
    for _ in range(draw(st.integers(0, most))):
        world.live(asks=asks)
    return world
