"""How is the server of a URL connected to?

By its address, or through Sentinels, which name the primary for each new connection.  A connection
to a server that became a replica breaks, and is made anew.
"""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from multiagents.core.sentinel import SentinelAddress, is_sentinel, parse
from multiagents.core.server_urls import explicit


def open_client(url: str, **options: Any) -> redis.Redis:
    """A client of the server; connects to nothing yet."""
    if not is_sentinel(url):
        return redis.Redis.from_url(explicit(url), **options)
    address = parse(url)
    make: Any = redis.sentinel.Sentinel  # which has no types
    manager = make(address.hosts, sentinel_kwargs=address.sentinel_kwargs)
    client: redis.Redis = manager.master_for(address.master, **_of_primary(address, options))
    return client


def open_async_client(url: str, **options: Any) -> redis.asyncio.Redis:
    """Likewise for an event loop."""
    if not is_sentinel(url):
        return redis.asyncio.Redis.from_url(explicit(url), **options)
    address = parse(url)
    make: Any = redis.asyncio.sentinel.Sentinel
    manager = make(list(address.hosts), sentinel_kwargs=address.sentinel_kwargs)
    client: redis.asyncio.Redis = manager.master_for(
        address.master, **_of_primary(address, options)
    )
    return client


def close_sentinels(client: Any) -> None:
    """Close a client's connections to its Sentinels; the client closes its own."""
    for each in _sentinels(client):
        each.close()


async def close_async_sentinels(client: Any) -> None:
    """Likewise."""
    for each in _sentinels(client):
        await each.aclose()


def _sentinels(client: Any) -> list[Any]:
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    return list(manager.sentinels) if manager is not None else []


def _of_primary(address: SentinelAddress, options: dict[str, Any]) -> dict[str, Any]:
    return {**options, **address.credentials, "db": address.db}
