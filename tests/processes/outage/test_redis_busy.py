"""Does anything get lost on a server that answers and does nothing for a while (BUSY and its kind)?

Somebody else's script runs for long; the server then refuses every command and has done nothing of
it, so what was asked is asked again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from redis.connection import DefaultParser
from redis.exceptions import ResponseError

from multiagents.core.events import StatusEvent
from multiagents.core.exceptions import NoServer
from multiagents.devserver.server import EmbeddedServer
from multiagents.event_bus import keys
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.hosting.report_retry import persist
from multiagents.hosting.runtime import runtime_at
from multiagents.storage.calls import Plain
from multiagents.storage.client import UNREACHABLE, AsyncEdge, Edge, NothingDone, asking
from multiagents.transport.kombu_redis import SteadyTransport, telling_parser
from tests.support.processes import Worker, wait_for

PARSER: Any = telling_parser(DefaultParser)
REPLIES = {
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL.": "script",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "replica",
    "CLUSTERDOWN The cluster is down": "cluster",
    "TRYAGAIN Multiple keys request during rehashing of slot": "cluster",
    "UNBLOCKED force unblock from blocking operation, instance state changed": "replica",
    "EXECABORT Transaction discarded because of: BUSY Redis is busy": "script",
    "ERR Error running script: Script killed by user with SCRIPT KILL... script: f": "SCRIPT KILL",
}
ADD = Plain(("INCR", "asked"), int)
LONGEST_MS = 30_000
"""For which the script runs if nothing kills it."""
SPIN = """
local ends = redis.call('TIME')[1] * 1000 + math.floor(redis.call('TIME')[2] / 1000) + ARGV[1]
while redis.call('TIME')[1] * 1000 + math.floor(redis.call('TIME')[2] / 1000) < ends do end
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that says that it is busy after 20 ms of a script."""
    with EmbeddedServer(tmp_path_factory.mktemp("busy")) as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("busy-reply-threshold", 20)
        yield server


@contextmanager
def busy(server: EmbeddedServer, ms: int) -> Iterator[None]:
    """From here on the server does nothing for so long, whatever the block does.

    The time begins when the server refuses commands: a slow machine does not miss it.
    """
    with redis.Redis.from_url(server.url) as client, redis.Redis.from_url(server.url) as other:
        hog = threading.Thread(target=_spin, args=(client,))
        hog.start()
        wait_for(lambda: _refuses(other), what="the script")
        end = threading.Timer(ms / 1000, other.script_kill)
        end.start()
        try:
            yield
        finally:
            end.join()
            hog.join()


def _spin(client: Any) -> None:
    """Run the script until it is killed."""
    with pytest.raises(ResponseError, match="Script killed by user"):
        client.eval(SPIN, 0, LONGEST_MS)


def _refuses(client: Any) -> bool:
    try:
        client.get("x")
    except ResponseError as error:
        return "BUSY" in str(error)
    return False


@pytest.mark.parametrize(("reply", "reason"), REPLIES.items())
def test_such_a_reply_is_waited_for(reply: str, reason: str) -> None:
    """The engine waits and logs why; so does a worker's connection to its broker."""
    error = PARSER.parse_error(reply)
    assert isinstance(error, SteadyTransport.connection_errors)
    with (
        pytest.raises(NothingDone, match=f"does nothing for now: .*{reason}"),
        asking("redis://h/0"),
    ):
        raise error
    assert issubclass(NothingDone, UNREACHABLE)


def test_what_a_busy_server_refused_is_asked_again(own: EmbeddedServer) -> None:
    """Both edges, the clock's correction and the bus try again; each call is done once."""
    edge = Edge(own.url)
    with busy(own, 300):
        first = edge.execute(ADD)

    async def others() -> int:
        other = AsyncEdge(own.url)
        with busy(own, 300):
            second = await other.execute(ADD)
        await other.close()
        async with RedisEventBus(own.url) as bus:
            event = StatusEvent(transaction_id="t", state="running")
            with busy(own, 300):
                await bus.publish(event)
            with busy(own, 300):
                await bus.subscribe("status", print, group="audit")
        return int(second)

    assert (first, asyncio.run(others())) == (1, 2)
    with redis.Redis.from_url(own.url) as client:
        assert client.xlen(keys.stream("status")) == 1
    edge.close()


def test_who_cannot_wait_is_told_why(own: EmbeddedServer) -> None:
    """After the patience of a lost connection, with what stands in the way."""
    runtime = runtime_at(own.url)
    with busy(own, 1500), pytest.raises(NoServer, match="a script has been running on it for long"):
        runtime.call("list")
    runtime.edge.close()


class Told:
    """A report that the store refuses a few times."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.times = 0

    def __call__(self) -> str:
        self.times += 1
        if self.errors:
            raise self.errors.pop(0)
        return "taken"


@pytest.mark.parametrize(
    "text", ["NOPERM this user has no permissions", "WRONGTYPE Operation against a key", "ERR odd"]
)
def test_a_report_outlives_an_error_of_the_store(redis_url: str, text: str) -> None:
    """It may be mended meanwhile: a result cannot be made again."""
    report = Told(ResponseError(text), ResponseError(text))
    told = persist(report, edge=Edge(redis_url), is_needed=lambda: True)
    assert (told, report.times) == ("taken", 3)


def test_a_report_that_is_wrong_is_not_repeated(redis_url: str) -> None:
    """An error that is not the store's will be the same again."""
    report = Told(ValueError("no JSON"))
    with pytest.raises(ValueError, match="no JSON"):
        persist(report, edge=Edge(redis_url), is_needed=lambda: False)
    assert report.times == 1


@pytest.mark.processes
def test_a_step_that_returns_to_a_busy_server_runs_once(own: EmbeddedServer) -> None:
    """Its report waits in its process, and a caller of ``get`` waits too."""
    env = {"MULTIAGENTS_LEASE_S": "1"}
    arguments = ("-Q", "io,llm", "-P", "threads", "-c", "2")
    with Worker(own.url, *arguments, imports="tests.support.busy_workers", env=env) as worker:
        worker.wait_ready()
        runtime = runtime_at(own.url)
        with redis.Redis.from_url(own.url) as client:
            result = runtime.start_saga.delay("busy_once", {})
            wait_for(lambda: client.exists("begun"), what="the step")
            with busy(own, 3000):
                client_side = result.get(timeout=20)
            saga = runtime.call("get", result.id)
            ran = int(client.get("begun") or 0)
        assert "a report is kept until it can be stored" in worker.log
    assert (client_side, ran, saga["steps"]["one"]["attempts"]) == ({"done": True}, 1, 1)
    runtime.edge.close()
