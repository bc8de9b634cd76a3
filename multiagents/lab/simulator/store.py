"""Where are the sagas of a simulated system stored?

They are on a real server, behind the engine's own edges, so the scripts are those of production.
Several servers are databases of that one.  A server can be away.  It can also lose up to its last
second, as after a failover to a late replica, or after a crash between two writes to its disk.

`Store.look` is the observer's access, which no fault affects.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from multiagents.core.polling import POLL_S
from multiagents.core.settings import Settings
from multiagents.devserver.binary import locate
from multiagents.devserver.server import START_S
from multiagents.lab.simulator.faults import SystemShape
from multiagents.storage.calls import Call, Plain
from multiagents.storage.client import UNREACHABLE, Edge
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.storage.routing import RoutedEdge, open_edge

LEASE_S = 6.0
RETENTION_S = 1_000_000.0
DATABASES = 3
"""How many databases of the server are used, and emptied."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A server's content at some time: its keys, dumped."""

    server: int
    dumps: dict[bytes, bytes]


class Servers:
    """The connections to the databases, kept over many histories."""

    def __init__(self, url: str) -> None:
        self.urls = [_database(url, number) for number in range(DATABASES)]
        self.clients = [redis.Redis.from_url(each) for each in self.urls]
        self._edges: dict[SystemShape, tuple[Settings, Edge]] = {}

    def store(self, shape: SystemShape) -> Store:
        """An empty store of that shape."""
        key = replace(shape, letters=False, plain=0.0, odd=False)
        if key not in self._edges:
            urls = self.urls[: shape.servers]
            settings = Settings(
                redis_url=urls[0],
                state_urls=",".join(urls) if len(urls) > 1 else "",
                shards=shape.shards,
                lease_s=LEASE_S,
                continuation=shape.continues,
                retention_s=RETENTION_S,
            )
            self._edges[key] = settings, self._edge(settings)
        for client in self.clients[: shape.servers]:
            client.flushdb()
        settings, edge = self._edges[key]
        return Store(settings, edge, self.clients[: shape.servers])

    def _edge(self, settings: Settings) -> Edge:
        """The engine's edge over these connections."""
        edge = open_edge(settings, perform=_no_effect)
        homes = edge._homes.edges if isinstance(edge, RoutedEdge) else [edge]
        for home, client in zip(homes, self.clients, strict=False):
            home._given = client
        return edge

    def close(self) -> None:
        """Close the connections."""
        for client in self.clients:
            client.close()


def _no_effect(effect: Any) -> Any:
    raise TypeError(f"the store cannot perform {effect!r}")


def _database(url: str, number: int) -> str:
    if url.startswith("unix://"):
        return f"{url}?db={number}"
    return f"{url.rpartition('/')[0]}/{number}"


class Store:
    """The servers of one simulated system."""

    def __init__(self, settings: Settings, edge: Edge, clients: list[Any]) -> None:
        self.settings, self.look = settings, edge
        self.clients = clients
        self.calls = 0
        self.away: dict[int, int] = {}
        """Server -> the Unix ms until which it is away."""
        self.refused: dict[str, int] = {}
        """Saga -> the Unix ms until which the server refuses all calls about it."""
        self.set_back: set[int] = set()
        """The servers that have lost writes at some time."""

    def execute(self, operation: Call[Any] | Plain[Any], now_ms: int) -> Any:
        """Perform a process's call."""
        if self.away and self.is_away(self.home_of(operation), now_ms):
            raise UNREACHABLE[0]("injected: this server is away")
        if self.refused and self._is_refused(operation, now_ms):
            raise ResponseError("ERR injected: refused, for this saga alone")
        self.calls += 1
        return self.look.execute(operation)

    def _is_refused(self, operation: Call[Any] | Plain[Any], now_ms: int) -> bool:
        keys = operation.keys if isinstance(operation, Call) else operation.command[1:2]
        sagas = {str(key).rpartition(":")[2] for key in keys}
        return any(self.refused.get(each, 0) > now_ms for each in sagas)

    def is_away(self, server: int, now_ms: int) -> bool:
        """Whether a server does not answer now."""
        return self.away.get(server, 0) > now_ms

    def home_of(self, operation: Call[Any] | Plain[Any]) -> int:
        """The number of the server that an operation is for."""
        keys = operation.keys if isinstance(operation, Call) else operation.command[1:2]
        return _homes(self.settings.shards, len(self.clients)).get(
            str(keys[0]).partition("}")[0], 0
        )

    def shards_of(self, server: int) -> tuple[Shard, ...]:
        """The shards of one server."""
        return tuple(map(Shard, range(server, self.settings.shards, len(self.clients))))

    def keys(self, saga_id: str) -> SagaKeys:
        """The keys of a saga."""
        return SagaKeys(saga_id, self.settings.shards)

    def server_of(self, saga_id: str) -> int:
        """The number of a saga's server."""
        return self.keys(saga_id).shard.number % len(self.clients)

    def client_of(self, saga_id: str) -> Any:
        """The observer's connection to a saga's server."""
        return self.clients[self.server_of(saga_id)]

    def was_set_back(self, saga_id: str) -> bool:
        """Whether the server of a saga has lost its last second at some time."""
        return self.server_of(saga_id) in self.set_back

    def has(self, saga_id: str) -> bool:
        """Whether a saga is stored."""
        return bool(self.client_of(saga_id).exists(self.keys(saga_id).saga))

    def due(self, servers: Iterable[int] | None = None) -> list[str]:
        """The due members of all shards, or of those of some servers."""
        return [
            member.decode()
            for server in (range(len(self.clients)) if servers is None else servers)
            for shard in self.shards_of(server)
            for member in self.clients[server].zrange(shard.due, 0, -1)
        ]

    # ---- what a server forgets ----

    def remember(self, server: int) -> Memory:
        """A server's content now."""
        client = self.clients[server]
        keys = client.keys("*")
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.dump(key)
        return Memory(server, dict(zip(keys, pipe.execute(), strict=True)))

    def restore(self, memory: Memory) -> None:
        """Set a server back; it loses all later writes."""
        pipe = self.clients[memory.server].pipeline(transaction=False)
        pipe.flushdb()
        for key, dump in memory.dumps.items():
            pipe.restore(key, 0, dump)
        pipe.execute()
        self.set_back.add(memory.server)


@cache
def _homes(shards: int, servers: int) -> dict[str, int]:
    """Tag of a key, up to its closing brace -> the number of its server."""
    return {Shard(number).tag.partition("}")[0]: number % servers for number in range(shards)}


@contextmanager
def own_servers(url: str | None = None) -> Iterator[Servers]:
    """The databases of that server, which are EMPTIED, or of a server that this starts."""
    with _server() if url is None else _known(url) as found:
        servers = Servers(found)
        try:
            yield servers
        finally:
            servers.close()


@contextmanager
def _known(url: str) -> Iterator[str]:
    yield url


@contextmanager
def _server() -> Iterator[str]:
    """The URL of a server on a Unix socket only: a call takes half the time of one by TCP."""
    with tempfile.TemporaryDirectory(prefix="ma-") as folder:
        socket = Path(folder) / "server.sock"
        options = {"port": 0, "unixsocket": socket, "dir": folder, "save": "", "appendonly": "no"}
        words = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        process = subprocess.Popen([locate().path, *words], stdout=subprocess.DEVNULL)
        patient = Retry(ConstantBackoff(POLL_S), round(START_S / POLL_S))
        try:
            with redis.Redis(unix_socket_path=str(socket), retry=patient) as client:
                client.ping()
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait()
