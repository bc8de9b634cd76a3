"""How do the kill tests start workers and sagas, and judge their ends?

A `Rig` is one database of the session's server with a folder of notes. Its client is a separate
app, so the test process's settings stay.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from celery import Celery

from multiagents.core.settings import Settings
from multiagents.core.states import ENDED
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime, attach
from multiagents.storage.connect import close_sentinels, open_client
from multiagents.storage.keys import Shard
from tests.support import kill_points, kill_workers
from tests.support.kill_points import Point
from tests.support.kill_workers import Effect
from tests.support.processes import ROOT, Worker, environment, wait_for

LEASE_S = 2.0
RECOVERY_S = LEASE_S + 5.0
"""The time within which a saga must go on after any one death."""
USUAL_S = LEASE_S + 2.0
"""The time within which half of them must go on."""
CLIENT_S = 60.0
"""The time for a program to import its modules and start some dozens of sagas."""
QUIET = ("--without-mingle", "--without-gossip", "--without-heartbeat")
"""Options that only shorten a worker's start."""


class Rig:
    """One database, one folder, one client."""

    def __init__(self, server_url: str, database: int, folder: Path) -> None:
        self.url = re.sub(r"/\d+(?=$|\?)", f"/{database}", server_url)
        self.folder = folder
        self.redis: Any = open_client(
            self.url,
            decode_responses=True,
            encoding_errors="replace",  # a compressed log
        )
        self.redis.flushdb()
        settings = Settings(redis_url=self.url, lease_s=LEASE_S)
        self.app: Celery = make_app(settings)
        self.runtime: Runtime = attach(self.app, settings)

    def close(self) -> None:
        """Close the client's connections."""
        self.redis.close()
        close_sentinels(self.redis)
        self.runtime.edge.close()
        self.app.close()

    def worker(self, *args: str, imports: str = "", **env: str) -> Worker:
        """A worker of this database, not yet started."""
        options = args if "-c" in args else ("-c", "2", *args)
        more = {**self._env, **env}
        return Worker(self.url, *QUIET, *options, imports=_modules(imports), env=more)

    def start_by_clients(
        self, workflow: str, points: Iterable[Point], *, imports: str = "", **env: str
    ) -> list[str]:
        """Start a saga per point, each by a client that dies there; returns the ids."""
        saga_ids = [point.saga_id() for point in points]
        modules = _modules(f"{imports},tests.support.kill_points")
        subprocess.run(
            [sys.executable, "-m", "tests.support.kill_client", workflow, *saga_ids],
            check=True,
            cwd=ROOT,
            env=environment(self.url, modules, **self._env, **env),
            timeout=CLIENT_S,
        )
        return saga_ids

    @property
    def _env(self) -> dict[str, str]:
        return {"KILL_DIR": str(self.folder), "MULTIAGENTS_LEASE_S": str(LEASE_S)}

    def start(self, workflow: str, point: Point | None = None, **given: Any) -> str:
        """Start a saga; returns its id."""
        saga_id = point.saga_id() if point else None
        result = self.runtime.start_saga.apply_async((workflow, given), task_id=saga_id)
        return str(result.id)

    def open(self, gate: str) -> None:
        """Let workers through a gate."""
        (self.folder / gate).touch()

    def saga(self, saga_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.runtime.call("get", saga_id)
        return found

    def history(self, saga_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.runtime.call("history", saga_id)
        return found

    def events(self, saga_id: str) -> list[tuple[str, str | None, int | None]]:
        """The history as type, step, attempt."""
        return [(row["type"], row["step"], row["attempt"]) for row in self.history(saga_id)]

    def effects(self, saga_id: str, what: str | None = None) -> list[Effect]:
        """The effects that the workers recorded."""
        found = kill_workers.effects(self.folder, saga_id)
        return [effect for effect in found if what in (None, effect.what)]

    def wait_effect(self, saga_id: str, what: str, *, step: str, attempt: int = 1) -> Effect:
        """Wait until a worker has recorded this."""

        def found() -> list[Effect]:
            effects = self.effects(saga_id, what)
            return [e for e in effects if (e.step, e.attempt) == (step, attempt)]

        return wait_for(found, 20.0, f"{what} of {step} {attempt}")[0]

    def wait_end(self, saga_id: str, deadline_s: float = 20.0) -> dict[str, Any]:
        """The saga once it has ended."""
        wait_for(lambda: self.saga(saga_id)["state"] in ENDED, deadline_s, f"end of {saga_id}")
        return self.saga(saga_id)

    def wait_settled(self, saga_id: str, deadline_s: float = 20.0) -> dict[str, Any]:
        """The saga after its end, its delivery and its last due item."""
        wait_for(lambda: not self.open_ends(saga_id), deadline_s, f"rest of {saga_id}")
        return self.saga(saga_id)

    def open_ends(self, saga_id: str) -> list[str]:
        """All that still has to happen to a saga, without its removal after the retention."""
        ends = [m for m in self.redis.zrange(Shard().due, 0, -1) if f"|{saga_id}" in m]
        ends = [member for member in ends if not member.startswith("x|")]
        ends += self.redis.hkeys(self.runtime.host.coordinator.repository.keys(saga_id).work)
        if self.saga(saga_id)["state"] not in ENDED:
            ends.append(self.saga(saga_id)["state"])
        return ends

    def traces(self, saga_id: str) -> list[str]:
        """The keys of the database that name a saga, or whose value does."""
        return [key for key in self.redis.scan_iter() if saga_id in f"{key} {self._value(key)}"]

    def _value(self, key: str) -> Any:
        match self.redis.type(key):
            case "list":
                return self.redis.lrange(key, 0, -1)
            case "zset":
                return self.redis.zrange(key, 0, -1)
            case "hash":
                return self.redis.hgetall(key)
            case "string":
                return self.redis.get(key)
        return None  # the set of a saga's entries holds hashes; its key names the saga

    def ended_at(self, saga_id: str) -> float:
        """Unix time of the last event."""
        return datetime.fromisoformat(self.history(saga_id)[-1]["at"]).timestamp()

    def calls(self, saga_id: str) -> list[str]:
        """The children's round trips to Redis for a saga."""
        return kill_points.calls_of(self.folder, saga_id)

    def killed_at(self, saga_id: str) -> float | None:
        return kill_points.killed_at(self.folder, saga_id)


def _modules(more: str) -> str:
    return ",".join(filter(None, ["tests.support.kill_workers", *more.split(",")]))


def check_recoveries(what: str, took_s: Sequence[float]) -> None:
    """Assert that all went on within lease + 5 s of a death, and half within lease + 2 s.

    The figures are printed (``pytest -rP``).
    """
    middle, longest = median(took_s), max(took_s)
    print(f"{what}: {len(took_s)} sagas took {middle:.1f} s (median), {longest:.1f} s (longest)")
    assert longest <= RECOVERY_S
    assert middle <= USUAL_S


def second_starts(rig: Rig, saga_id: str) -> list[Any]:
    """Attempts that ran twice, and starts of finished work; the list must be empty."""
    found: list[Any] = []
    begun = [(e.what, e.step, e.attempt) for e in rig.effects(saga_id) if e.what in ("run", "undo")]
    found += [effect for effect in set(begun) if begun.count(effect) > 1]
    done: set[tuple[str, str | None]] = set()
    for kind, step, attempt in rig.events(saga_id):
        prefix, _, what = kind.partition("_")
        if what == "claimed" and (prefix, step) in done:
            found.append((kind, step, attempt))
        if what == "succeeded":
            done.add((prefix, step))
    return found
