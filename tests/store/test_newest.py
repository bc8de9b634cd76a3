"""Are the newest sagas of several shards read in order, each once, page by page?"""

from __future__ import annotations

import random
from itertools import count

import pytest
import redis

from multiagents.core.exceptions import InvalidInput
from multiagents.core.moments import moment_ms
from multiagents.storage.client import Edge
from multiagents.storage.newest_sagas import Newest


def read(edge: Edge, newest: Newest, size: int) -> list[str]:
    found: list[str] = []
    while page := edge.run(newest.page(size)):
        assert len(page) <= size
        found += page
    return found


@pytest.mark.parametrize("seed", range(12))
def test_pages_give_every_saga_once_newest_first(redis_url: str, seed: int) -> None:
    """This holds for any page size, many starts in one millisecond, and a time window."""
    chance = random.Random(seed)
    indexes = [f"index:{n}" for n in range(chance.randint(1, 4))]
    names = map(str, count())
    given = [
        (next(names), 1_700_000_000_000 + chance.randint(0, chance.choice((2, 40))))
        for _ in range(chance.randint(0, 60))
    ]
    with redis.Redis.from_url(redis_url) as client:
        for name, at in given:
            client.zadd(chance.choice(indexes), {name: at})
    since, until = (1_700_000_000_000 + n for n in (1, 30))
    edge = Edge(redis_url)
    for size in (1, 2, 3, 7, 100):
        found = read(edge, Newest(indexes), size)
        assert sorted(found) == sorted(name for name, _ in given)
        times = [dict(given)[name] for name in found]
        assert times == sorted(times, reverse=True)
        window = read(edge, Newest(indexes, since_ms=since, until_ms=until), size)
        assert sorted(window) == sorted(name for name, at in given if since <= at <= until)
    edge.close()


def test_sagas_that_start_meanwhile_move_nothing(redis_url: str) -> None:
    """A page begins where the previous one ended."""
    edge, newest = Edge(redis_url), Newest(["index"])
    with redis.Redis.from_url(redis_url) as client:
        client.zadd("index", {f"old{n}": n for n in range(6)})
        first = edge.run(newest.page(2))
        client.zadd("index", {f"new{n}": 10 + n for n in range(5)})
    assert first + read(edge, newest, 2) == [f"old{n}" for n in range(5, -1, -1)]
    edge.close()


NOW = 1_796_000_000_000


def test_people_write_times_in_several_ways() -> None:
    """An age, a local day, and ISO 8601 with or without zone are valid."""
    hour = 3_600_000
    assert moment_ms("2h", NOW, name="since") == NOW - 2 * hour
    assert moment_ms("90 s ago", NOW, name="since") == NOW - 90_000
    today, yesterday = (moment_ms(day, NOW, name="since") for day in ("today", "yesterday"))
    assert NOW - 24 * hour <= today <= NOW
    assert 23 * hour <= today - yesterday <= 25 * hour
    assert moment_ms("2026-11-30T12:00:00.5Z", NOW, name="since") == 1_796_040_000_500
    assert moment_ms("2026-11-30t14:00+02:00", NOW, name="since") == 1_796_040_000_000
    naive = moment_ms("2026-11-30T12:00", NOW, name="since")
    assert abs(naive - 1_796_040_000_000) <= 14 * hour


@pytest.mark.parametrize("text", ["", "soon", "2", "-2h", "2026-02-30", "0001-01-01", "9" * 12])
def test_what_is_no_time_is_refused_with_what_is_expected(text: str) -> None:
    """The message names the argument."""
    with pytest.raises(InvalidInput, match=r"since is .*expected a time ago"):
        moment_ms(text, NOW, name="since")
