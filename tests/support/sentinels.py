"""How do tests run a primary, its replica and a Sentinel that watches them?

Two embedded servers, the second a replica of the first, and the same binary as a Sentinel.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from multiagents.devserver.server import EmbeddedServer, locate
from tests.support.processes import free_port, wait_for

MASTER = "shop"
DOWN_AFTER_MS = 1500
"""A primary counts as down after this silence; a busy machine is silent for less."""
TILT_MS = 1000
"""A Sentinel stopped for 2 s distrusts its knowledge for so long; the default is 30 s."""
FAILOVER_S = 30.0
CONFIG = """\
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {master} 127.0.0.1 {primary} 1
sentinel down-after-milliseconds {master} {down_ms}
sentinel failover-timeout {master} 2000
"""


@dataclass
class Watched:
    """A primary and a replica, with the place of their Sentinel."""

    primary: EmbeddedServer
    replica: EmbeddedServer
    sentinel_port: int
    sentinel: Any

    @property
    def url(self) -> str:
        """A URL whose first Sentinel does not exist."""
        hosts = f"127.0.0.1:1,127.0.0.1:{self.sentinel_port}"
        return f"sentinel://{hosts}/0?master_name={MASTER}"

    @property
    def primary_port(self) -> int:
        """The primary's port, as the Sentinel knows it."""
        return int(self.sentinel.sentinel_get_master_addr_by_name(MASTER)[1])

    def wait_replicated(self) -> None:
        """Return once the replica has all the primary's data."""
        with redis.Redis.from_url(self.primary.url) as client:
            client.incr("test:replicated")
            wait_for(lambda: client.wait(1, 500), 10.0, "the replica")

    def fail_over(self) -> None:
        """Kill the primary, and return once the replica has taken its place."""
        self.wait_replicated()
        self.primary.kill()
        wait_for(lambda: self.primary_port == self.replica.port, FAILOVER_S, "the fail-over")
        wait_for(lambda: _is_up(self.sentinel.sentinel_master(MASTER)), FAILOVER_S, "its end")


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """The three processes, gone when the block ends."""
    with EmbeddedServer(folder / "a") as primary, EmbeddedServer(folder / "b") as replica:
        with redis.Redis.from_url(primary.url) as client:
            client.config_set("repl-diskless-sync-delay", 0)
        with redis.Redis.from_url(replica.url) as client:
            client.replicaof("127.0.0.1", str(primary.port))
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        with _sentinel(folder, primary.port) as port:
            client = redis.Redis(port=port, decode_responses=True)
            found = Watched(primary, replica, port, client)
            wait_for(lambda: _knows_all(client), FAILOVER_S, "the Sentinel's knowledge")
            client.execute_command("SENTINEL DEBUG", "tilt-period", TILT_MS)
            try:
                yield found
            finally:
                client.close()


def _knows_all(client: Any) -> bool:
    try:
        state = client.sentinel_master(MASTER)
    except redis.RedisError:  # not up yet; the caller has the deadline
        return False
    return state["num-slaves"] == 1 and _is_up(state)


def _is_up(state: dict[str, Any]) -> bool:
    """Whether clients that ask for the primary get an answer."""
    return bool(state["is_master"] and not state["is_sdown"] and not state["is_odown"])


@contextmanager
def _sentinel(folder: Path, primary: int) -> Iterator[int]:
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        CONFIG.format(
            port=port, folder=folder, master=MASTER, primary=primary, down_ms=DOWN_AFTER_MS
        )
    )
    with (folder / "sentinel.log").open("wb") as log:
        command = [str(locate().path), str(config), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)
