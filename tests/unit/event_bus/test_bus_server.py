"""Does the Redis event bus keep its promises when processes or the server die?"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from multiagents.core.events import ErrorEvent, Event
from multiagents.core.exceptions import NoServer
from multiagents.devserver.server import EmbeddedServer
from multiagents.event_bus import keys
from multiagents.event_bus.bus import EventBus
from multiagents.event_bus.redis_bus import RedisEventBus
from tests.support.bus import SOON_S, Inbox, status, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_constructing_connects_to_nothing() -> None:
    """A wrong address fails at start, and the message hides the password."""
    bus = RedisEventBus("redis://user:hunter2@127.0.0.1:1/0")
    with pytest.raises(NoServer, match=r"no Redis answers at redis://127\.0\.0\.1:1/0") as caught:
        await bus.start()
    assert "hunter2" not in str(caught.value)
    await bus.stop()


async def test_buses_of_several_processes_share_groups(redis_url: str) -> None:
    """Two buses deliver each event once to each group."""
    first, second = Inbox(), Inbox()
    async with RedisEventBus(redis_url) as one, RedisEventBus(redis_url) as two:
        await one.subscribe("status", first, group="g")
        await two.subscribe("status", second, group="g")
        for number in range(20):
            await one.publish(status(number))
        await until(lambda: len(first.events) + len(second.events) >= 20)
    assert sorted(first.ids + second.ids) == sorted(f"t{n}" for n in range(20))


async def test_an_event_of_a_dead_process_goes_to_another(redis_url: str) -> None:
    """A living consumer claims the events of a killed one."""
    inbox = Inbox()
    async with RedisEventBus(redis_url, redeliver_after_s=SOON_S) as bus, _client(redis_url) as raw:
        await raw.xgroup_create(keys.stream("status"), "g", id="0", mkstream=True)
        await bus.publish(status(1))
        wanted: Any = {keys.stream("status"): ">"}
        assert await raw.xreadgroup("g", "ghost", wanted)
        await bus.subscribe("status", inbox, group="g")
        await inbox.has(1)
    assert inbox.ids == ["t1"]


async def test_an_event_that_kills_its_processes_becomes_a_dead_letter(redis_url: str) -> None:
    """The server counts the deliveries, since no process survives to do so."""
    inbox = Inbox()
    async with (
        _client(redis_url) as raw,
        RedisEventBus(redis_url, redeliver_after_s=SOON_S, max_deliveries=1) as bus,
    ):
        await raw.xgroup_create(keys.stream("status"), "g", id="0", mkstream=True)
        await bus.publish(status(1))
        wanted: Any = {keys.stream("status"): ">"}
        await raw.xreadgroup("g", "ghost", wanted)
        await bus.subscribe("status", inbox, group="g")
        await bus.publish(status(2))
        await inbox.has(1)
        letters = await _letters(bus)
    assert [(letter.deliveries, letter.error) for letter in letters] == [(1, "NeverAcknowledged")]
    assert inbox.ids == ["t2"]


async def _letters(bus: EventBus) -> list[Any]:
    async with asyncio.timeout(10):
        while not (letters := await bus.dead_letters()):  # noqa: ASYNC110 - it lies on the server
            await asyncio.sleep(0.01)
    return letters


async def test_a_slow_handler_keeps_its_event(redis_url: str) -> None:
    """A working handler's hold is renewed, so slow does not count as dead."""
    calls: list[Event] = []
    leave = asyncio.Event()

    async def slow(event: Event) -> None:
        calls.append(event)
        await leave.wait()

    done = Inbox()
    slowly = RedisEventBus(redis_url, redeliver_after_s=SOON_S * 6)
    async with slowly as bus, _client(redis_url) as raw:
        for _ in range(2):
            await bus.subscribe("status", slow, group="g")
        await bus.subscribe("error", done, group="g")
        await bus.publish(status(1))
        await until(lambda: calls)
        # The renewals outlast one hold, and the other reader has looked for the event meanwhile.
        await _carried_out(raw, xclaim=4, xpending=8)
        await bus.publish(ErrorEvent(transaction_id="t", worker_name="w", error="e"))
        await done.has(1)
        leave.set()
    assert len(calls) == 1


async def _carried_out(client: Redis, **more: int) -> None:
    """Wait until the server has carried out so many more of these commands."""

    async def counts() -> list[int]:
        found: Any = await client.info("commandstats")
        return [found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in more]

    before = await counts()
    async with asyncio.timeout(10):
        while any(  # noqa: ASYNC110 - it lies on the server
            now - then < wanted
            for now, then, wanted in zip(await counts(), before, more.values(), strict=True)
        ):
            await asyncio.sleep(0.01)


async def test_a_renewal_that_was_not_cancelled_holds_nobody_up(redis_url: str) -> None:
    """A cancellation lost inside the client must not block the reader for ever."""
    renewing, taken = asyncio.Event(), asyncio.Event()

    class Deaf(Redis):
        async def xclaim(self, *args: Any, **options: Any) -> Any:
            renewing.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def handler(event: Event) -> None:
        await renewing.wait()
        if taken.is_set():
            second.set()
        taken.set()

    second = asyncio.Event()
    async with RedisEventBus(redis_url, redeliver_after_s=SOON_S * 20) as bus:
        real, bus._receiver = bus._receiver, Deaf.from_url(redis_url)
        await bus.subscribe("status", handler, group="g")
        await bus.publish(status(0))
        await until(taken.is_set)
        await bus.publish(status(1))
        await until(second.is_set)
        deaf, bus._receiver = bus._receiver, real
        await bus._readers.end_all()
        await deaf.aclose()


async def test_an_unreadable_entry_becomes_a_dead_letter(redis_url: str) -> None:
    """Its first delivery puts it aside, and the next events arrive."""
    inbox, private = Inbox(), Inbox()
    async with RedisEventBus(redis_url) as bus, _client(redis_url) as raw:
        await bus.subscribe("status", inbox, group="g")
        await bus.subscribe("status", private)
        await raw.xadd(keys.stream("status"), {"event": "{"})
        await bus.publish(status(1))
        await inbox.has(1)
        await private.has(1)
        [letter] = await _letters(bus)
    assert (letter.error, letter.event) == ("InvalidInput", "{")


async def test_an_event_that_cannot_be_settled_keeps_no_other_waiting(redis_url: str) -> None:
    """An event waits while the dead letter key has a wrong type, and is stored once it is right."""
    inbox = Inbox()
    async with (
        RedisEventBus(redis_url, redeliver_after_s=SOON_S) as bus,
        _client(redis_url) as raw,
    ):
        await raw.set(keys.DEAD_LETTERS, "no stream")
        await raw.xgroup_create(keys.stream("status"), "g", id="0", mkstream=True)
        await raw.xadd(keys.stream("status"), {"event": "{"})
        await bus.publish(status(1))
        await bus.subscribe("status", inbox, group="g")
        await inbox.has(1)
        await raw.delete(keys.DEAD_LETTERS)
        [letter] = await _letters(bus)
    assert letter.error in ("InvalidInput", "NeverAcknowledged")


async def test_a_lost_group_is_made_again(redis_url: str) -> None:
    """After data loss the server's groups come back and miss nothing published since."""
    inbox = Inbox()
    async with RedisEventBus(redis_url) as bus, _client(redis_url) as raw:
        await bus.subscribe("status", inbox, group="g")
        await raw.flushall()
        await bus.publish(status(1))
        await inbox.has(1)


async def test_streams_are_capped(redis_url: str) -> None:
    """Streams keep a bounded number of events (approximately)."""
    async with RedisEventBus(redis_url, max_stream_length=10) as bus, _client(redis_url) as raw:
        for number in range(300):
            await bus.publish(status(number))
        assert await raw.xlen(keys.stream("status")) < 300


async def test_a_stopped_bus_leaves_no_consumer_behind(redis_url: str) -> None:
    """The groups stay, and their consumers' names are removed."""
    async with _client(redis_url) as raw:
        async with RedisEventBus(redis_url) as bus:
            inbox = Inbox()
            await bus.subscribe("status", inbox, group="g")
            await bus.publish(status(1))
            await inbox.has(1)
        assert await raw.xinfo_consumers(keys.stream("status"), "g") == []
        assert (await raw.xpending(keys.stream("status"), "g"))["pending"] == 0


async def test_subscriptions_survive_a_killed_server(tmp_path: Path) -> None:
    """Readers reconnect; publishing waits for a restart, and raises if there is none."""
    with EmbeddedServer(tmp_path / "data", appendfsync="always") as server:
        inbox, private = Inbox(), Inbox()
        async with RedisEventBus(server.url, redeliver_after_s=SOON_S) as bus:
            await bus.subscribe("status", inbox, group="g")
            await bus.subscribe("status", private)
            await bus.publish(status(1))
            await inbox.has(1)
            await private.has(1)
            server.kill()
            publishing = asyncio.create_task(bus.publish(status(2)))
            await asyncio.to_thread(server.restart)
            await publishing
            # At least once: on a slow machine the first event may come again before the second.
            await until(lambda: set(inbox.ids) == set(private.ids) == {"t1", "t2"})
            server.kill()
            with pytest.raises(NoServer, match="status event of saga t3 is not published"):
                await bus.publish(status(3))


def _client(url: str) -> Redis:
    return Redis.from_url(url)
