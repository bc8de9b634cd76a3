"""Which clocks of a simulated system are wrong?

Either the servers' clock is set back and all processes follow it, or the clock of one sweep is an
hour ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from multiagents.core.effects import Flow
from multiagents.lab.simulator.broker import SimulatedBroker
from multiagents.lab.simulator.store import Store
from multiagents.lab.simulator.world import World
from multiagents.storage.calls import Call
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.keys import Shard
from multiagents.storage.sagas import Guard

Found = tuple[Guard, ...]

SKEW_MS = 2500
"""The usual limit of the error of a process's clock."""
HOUR_MS = 3_600_000
SET_BACK = "servers' clock set back"
BACK_MS = 20_000
"""How far the clock is set back.  Timeouts of plain tasks, deadlines, and retries of earlier
entries keep their times, and no history could wait an hour for them."""


def sweeps_go_on(world: World, kept: Store) -> bool:
    """Whether all shards were swept recently, and no clock was set back before."""
    since_ms = world.now_ms - 2 * SKEW_MS
    ticks = [
        client.hget(shard.tick, "at")
        for server, client in enumerate(kept.clients)
        for shard in kept.shards_of(server)
    ]
    return not world.seen[SET_BACK] and all(int(at or 0) > since_ms for at in ticks)


def set_clock_back(
    by_ms: int, world: World, kept: Store, broker: SimulatedBroker, processes: Iterable[Any]
) -> None:
    """Set the servers' clock back; sleeps and outages keep their length.

    Calls on their way, with times of the earlier clock, do not arrive.
    """
    world.seen[SET_BACK] += 1
    world.now_ms -= by_ms
    for trouble in (kept.away, kept.refused, broker.refusing):
        _shift(trouble, by_ms)
    broker.set_clock_back(by_ms)
    for process in processes:
        process.wake_ms -= by_ms
        for thread in process.threads:
            thread.wake_ms -= by_ms
            if isinstance(thread.effect, Call):
                thread.effect, thread.error = None, UNREACHABLE[0]("injected: not sent")


def _shift(times: dict[Any, int], by_ms: int) -> None:
    for what in times:
        times[what] -= by_ms


async def by_a_clock_ahead(
    due: Callable[[Shard], Flow[Found]], set_ahead: Callable[[int], None], shard: Shard
) -> Found:
    """The findings of one sweep by a clock that is an hour ahead."""
    flow = due(shard)
    set_ahead(HOUR_MS)
    call = flow.send(None)
    set_ahead(0)
    reply = await call
    try:
        _ = flow.send(reply)
    except StopIteration as stop:
        found: Found = stop.value
        return found
    raise AssertionError("a sweep is one call")
