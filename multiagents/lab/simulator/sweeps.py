"""How does a simulated process sweep?

It sweeps in the rounds of a worker's thread, with the same handling of errors.  An error that a due
item may have in a correct engine postpones the item, as in a worker.  Any other error is a bug in
the engine, and ends the history.
"""

from __future__ import annotations

from typing import cast

from multiagents.core.exceptions import UnknownSaga
from multiagents.engine.messages import NotTaken
from multiagents.engine.sweeper import Sweeper
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.lab.simulator.world import ProcessClock, World
from multiagents.storage.client import Edge, StoreError
from multiagents.storage.keys import Shard
from multiagents.storage.sagas import Guard

ITEMS_OWN = (StoreError, NotTaken, UnknownSaga)
"""The errors that a due item may have in a correct engine."""


class SimulatedSweeper(SweeperThread):
    """A sweeper's thread without the thread."""

    def __init__(self, sweeper: Sweeper, world: World, clock: ProcessClock) -> None:
        nowhere = cast(Edge, None)
        super().__init__(sweeper, nowhere, settings=world.settings, clock=clock, announce=None)
        self._seen = world.seen

    async def _put_off(self, shard: Shard, item: Guard, error: Exception) -> None:
        if not isinstance(error, ITEMS_OWN):
            raise error
        self._seen["due item put off"] += 1
        await super()._put_off(shard, item, error)
