"""How do the tests of `explain` bring a saga into its state?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Failure
from multiagents.core.ports import Assignment, Verdict
from multiagents.core.states import Kind
from multiagents.hosting.runtime import Runtime, runtime_at
from multiagents.saga.state import Saga
from multiagents.storage.keys import Shard
from multiagents.workflows.workflow import Workflow
from tests.support.one_process import lose

FLEET = Shard(0).catalog("fleet")
BOOM = Failure("BankDown", "the bank does not answer")


class Office:
    """One process that has begun to work on a saga."""

    def __init__(self, url: str) -> None:
        self.runtime: Runtime = runtime_at(url)
        # A process has one per server, and an earlier test's worker may have named it.
        self.runtime.host.coordinator.claims.hostname = ""
        self.url = url

    def start(self, workflow: Workflow) -> str:
        saga_id: str = self.runtime.call("start", workflow, {})
        return saga_id

    def worker_runs(
        self,
        *queues: str,
        functions: tuple[str, ...] = ("explain.do",),
        host: str = "celery@one",
        app: str | None = None,
    ) -> None:
        """Announce a live worker with two slots."""
        about = {
            "at_ms": round(time.time() * 1000),
            "queues": list(queues),
            "slots": 2,
            "workers": dict.fromkeys(functions, queues[0]),
            "app": app,
        }
        with redis.Redis.from_url(self.url) as client:
            client.hset(FLEET, host, json.dumps(about))

    def claim(self, saga_id: str, step: str, kind: Kind = Kind.RUN, attempt: int = 1) -> Assignment:
        held = self.runtime.host.engine.claim(
            saga_id, AttemptRef(kind, step, attempt), delivery="d", queue="io"
        )
        assert held is not None
        return held

    def succeed(self, saga_id: str, step: str) -> None:
        held = self.claim(saga_id, step)
        self.runtime.host.engine.succeed(held, "{}", go_on=False)

    def fail(self, held: Assignment, *, retryable: bool = False, error: Failure = BOOM) -> None:
        verdict = Verdict(error, retryable=retryable)
        self.runtime.host.engine.fail(held, verdict, go_on=False)

    def lose(self, held: Assignment) -> None:
        """Let its lease expire, and a sweep notice it."""
        lose(self.runtime.edge, self.runtime.host.coordinator, held)

    def current(self, saga_id: str) -> tuple[Saga, Workflow]:
        """A saga as it is now, with its definition."""
        return self.runtime.edge.run(self.runtime.host.coordinator.repository.current(saga_id))

    def explain(self, saga_id: str) -> dict[str, Any]:
        told: dict[str, Any] = self.runtime.call("explain", saga_id)
        return told

    def reason(self, saga_id: str, code: str) -> dict[str, Any]:
        """The one reason of that code."""
        told = self.explain(saga_id)
        found = [reason for reason in told["reasons"] if reason["code"] == code]
        assert len(found) == 1, told
        assert found[0]["text"] in told["text"]
        return found[0]


@pytest.fixture
def office(redis_url: str) -> Iterator[Office]:
    """An office over the session's empty server."""
    with open_office(redis_url) as found:
        yield found


@contextmanager
def open_office(url: str) -> Iterator[Office]:
    """An office without other processes."""
    yield Office(url)
    with redis.Redis.from_url(url) as client:
        client.delete(FLEET)
