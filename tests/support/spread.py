"""How do tests run sagas over several real servers?

A `Spread` is three embedded servers with a shard each, besides the session's server, which is the
broker; its client is a separate app. A test chooses a saga's id so that the saga is on the wanted
shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from multiagents.core.ids import fresh_id
from multiagents.core.settings import Settings
from multiagents.core.states import ENDED
from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime, attach
from multiagents.storage.keys import shard_of
from tests.support import kill_workers
from tests.support.kill_rig import LEASE_S, QUIET
from tests.support.processes import Worker, wait_for

DATABASE = 13
"""The broker's database on the session's server."""


def id_on(shard: int, shards: int = 3) -> str:
    """An id for a new saga on that shard."""
    return next(i for i in iter(fresh_id, "") if shard_of(i, shards).number == shard)


def emptied(url: str) -> str:
    """The URL of an empty database."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


class Spread:
    """Servers with a shard each, a broker, one client."""

    def __init__(
        self, servers: Sequence[EmbeddedServer], broker: EmbeddedServer, folder: Path
    ) -> None:
        self.servers = servers
        self.folder = folder
        self.urls = [emptied(server.url) for server in servers]
        self.broker = emptied(f"{broker.url.rpartition('/')[0]}/{DATABASE}")
        self.settings = Settings(
            redis_url=self.broker, state_urls=",".join(self.urls), lease_s=LEASE_S
        )
        self.app: Celery = make_app(self.settings)
        self.runtime: Runtime = attach(self.app, self.settings)

    def close(self) -> None:
        """Close the client's connections."""
        self.runtime.edge.close()
        self.app.close()

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its processes."""
        return {
            "MULTIAGENTS_STATE_URLS": self.settings.state_urls,
            "MULTIAGENTS_LEASE_S": str(LEASE_S),
        }

    def worker(self, *args: str) -> Worker:
        """A worker of these servers, not yet started."""
        env = {**self.variables, "KILL_DIR": str(self.folder)}
        imports = "tests.support.kill_workers"
        return Worker(self.broker, *QUIET, *args, imports=imports, env=env)

    def start(self, workflow: str, shard: int, **given: Any) -> str:
        """Start a saga on that shard; returns its id."""
        result = self.runtime.start_saga.apply_async((workflow, given), task_id=id_on(shard))
        return str(result.id)

    def saga(self, saga_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.runtime.call("get", saga_id)
        return found

    def wait_end(self, saga_id: str, deadline_s: float = 20.0) -> dict[str, Any]:
        """The saga once it has ended."""
        wait_for(lambda: self.saga(saga_id)["state"] in ENDED, deadline_s, f"end of {saga_id}")
        return self.saga(saga_id)

    def attempts(self, saga_id: str, what: str, step: str) -> list[int]:
        """The attempts of a step that the workers have recorded with this."""
        found = kill_workers.effects(self.folder, saga_id)
        return [effect.attempt for effect in found if (effect.what, effect.step) == (what, step)]

    def wait_attempt(self, saga_id: str, step: str, attempt: int = 1) -> None:
        """Return once that attempt runs."""
        wait_for(lambda: attempt in self.attempts(saga_id, "run", step), 20.0, f"{step} {attempt}")

    def open(self, gate: str) -> None:
        """Let workers through a gate."""
        (self.folder / gate).touch()
