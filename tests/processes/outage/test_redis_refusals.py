"""Does a worker outlive a server that answers and takes no writes, for its disk or its replicas?

To fetch a message is a write, so even an idle worker meets that within a second.  A full server
still hands out messages: of it tells `test_redis_full`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection
from redis import _parsers

from multiagents import WorkflowBuilder
from multiagents.cli.doctor import checks
from multiagents.devserver.server import EmbeddedServer
from multiagents.storage.health import ServerHealth
from multiagents.storage.refusals import REFUSALS
from multiagents.storage.writes import refusal_of
from multiagents.transport import kombu_redis
from multiagents.transport.kombu_redis import NAME, SteadyTransport, telling_parser
from tests.support.celery_rig import (
    CONNECTED,
    DEADLINE_S,
    CeleryRig,
    assert_completed_once,
    busy_worker,
    fill,
)
from tests.support.command_line import cli
from tests.support.office import open_office
from tests.support.processes import Worker, wait_for

LOST = "Connection to broker lost"


# ---- what refuses ----


@contextmanager
def no_replicas(server: EmbeddedServer, client: Any) -> Iterator[None]:
    """The server has fewer replicas than it must have for a write."""
    client.config_set("min-replicas-to-write", "1")
    try:
        yield
    finally:
        client.config_set("min-replicas-to-write", "0")


@contextmanager
def no_disk(server: EmbeddedServer, client: Any) -> Iterator[None]:
    """The server's last snapshot has failed: a directory stands where its file shall be."""
    client.config_set("save", "3600 1")
    in_the_way = server.data_dir / "dump.rdb"
    in_the_way.mkdir()
    _snapshot(client, "err")
    try:
        yield
    finally:
        in_the_way.rmdir()
        _snapshot(client, "ok")
        in_the_way.unlink()
        client.config_set("save", "")


def _snapshot(client: Any, status: str) -> None:
    client.execute_command("BGSAVE")
    wait_for(
        lambda: client.info("persistence")["rdb_last_bgsave_status"] == status, DEADLINE_S, status
    )


Reason = Callable[[EmbeddedServer, Any], Any]
REASONS: dict[str, Reason] = {"NOREPLICAS": no_replicas, "MISCONF": no_disk}


# ---- a worker's connection ----

PARSERS = {
    "hiredis": _parsers._HiredisParser,
    "resp2": _parsers._RESP2Parser,
    "resp3": _parsers._RESP3Parser,
}
"""Of which redis-py takes one, by what is installed and by the protocol."""
every_parser = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS.keys())


@every_parser
@pytest.mark.parametrize(
    "text",
    [
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Valkey is configured to save RDB snapshots, but",
        "NOREPLICAS Not enough good replicas to write. script: on @user_script:2.",
        "EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to write.",
        "ERR Error running script (call to f_x): @user_script:1: -MISCONF Errors writing to",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
    ],
)
def test_a_refusal_is_a_lost_connection(text: str, parser: Any) -> None:
    """A command, a script or a transaction may raise it."""
    error = telling_parser(parser).parse_error(text)
    assert isinstance(error, SteadyTransport.connection_errors)


@every_parser
@pytest.mark.parametrize(
    "text",
    [
        "ERR wrong number of arguments for MISCONF command",
        "EXECABORT Transaction discarded because of previous errors.",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "NOSCRIPT No matching script.",
    ],
)
def test_another_error_is_what_it_was(text: str, parser: Any) -> None:
    """It is a fault: treated as an outage it would be retried for ever."""
    error = telling_parser(parser).parse_error(text)
    assert not isinstance(error, SteadyTransport.connection_errors)
    assert type(error) is type(parser.parse_error(text))


@pytest.mark.processes
@pytest.mark.parametrize("word", REASONS)
def test_all_that_a_connection_writes_is_refused_alike(tmp_path: Path, word: str) -> None:
    """A new connection, a message, and a script in a transaction; afterwards all of it goes."""
    with (
        EmbeddedServer(tmp_path) as server,
        redis.Redis.from_url(server.url) as client,
        Connection(server.url, transport=NAME) as opened,
    ):
        errors = opened.connection_errors
        channel = opened.channel()
        script = "return redis.call('SET', 'k', 'v')"
        with REASONS[word](server, client):
            with pytest.raises(errors, match=word):
                channel._put("q", {"properties": {"priority": 0}})
            with pytest.raises(errors, match=word):
                channel.client.pipeline().eval(script, 0).execute()
            with pytest.raises(errors, match=word), Connection(server.url, transport=NAME) as new:
                new.connect()
        channel._put("q", {"properties": {"priority": 0}})
        channel.client.pipeline().eval(script, 0).execute()
        assert (client.llen("q"), client.get("k")) == (1, b"v")


def test_every_transport_knows_refusals() -> None:
    """Those with Sentinels too."""
    named = [value for name, value in vars(kombu_redis).items() if name.endswith("Transport")]
    assert len(named) == 4
    for each in named:
        assert set(kombu_redis.REFUSED) <= set(each.connection_errors)
        assert issubclass(each.Channel, kombu_redis.SteadyChannel)


# ---- workers ----


@pytest.mark.processes
@pytest.mark.parametrize(
    ("word", "app", "pool"),
    [
        ("NOREPLICAS", "own", "prefork"),
        ("MISCONF", "own", "threads"),
        ("MISCONF", "team", "prefork"),
        ("NOREPLICAS", "team", "threads"),
    ],
)
def test_a_worker_waits_until_writes_are_taken(
    tmp_path: Path, word: str, app: str, pool: str
) -> None:
    """Once while it is idle, once with both slots at work and messages held: nothing is lost."""
    with EmbeddedServer(tmp_path / "server") as server:
        rig = CeleryRig(server.url, 0, tmp_path)
        with busy_worker(rig, app, pool) as worker:
            worker.wait_ready()
            with REASONS[word](server, rig.redis):
                refused(worker, word, times=1)
                doctor = cli("doctor", "--json", url=rig.url)
            wait_for(lambda: worker.log.count(CONNECTED) == 2, DEADLINE_S, "the connection")
            every = fill(rig, worker, app)
            with REASONS[word](server, rig.redis):
                refused(worker, word, times=2)
                rig.open("up")
                wait_for(lambda: "a report is kept until it can be stored" in worker.log, 20.0)
            assert_completed_once(rig, worker, every)
        rig.close()
    assert (doctor.code, doctor.json["ok"]) == (1, False)
    assert REFUSALS[word] in " ".join(check["message"] for check in doctor.json["checks"])


def refused(worker: Worker, word: str, *, times: int) -> None:
    """Return once the worker has noticed, has said why, and has tried in vain to connect."""
    wait_for(lambda: worker.log.count(LOST) == times, DEADLINE_S, "the loss")
    tried = worker.log.count("Cannot connect to")
    wait_for(lambda: worker.log.count("Cannot connect to") > tried, DEADLINE_S, "Celery's tries")
    assert f": {word} " in worker.log
    sweeper = f"takes no writes: {REFUSALS[word]}: its sagas wait"
    wait_for(lambda: sweeper in worker.log, DEADLINE_S, "the sweeper")
    assert worker.process.poll() is None


# ---- what explain says ----


@contextmanager
def replica(server: EmbeddedServer, client: Any) -> Iterator[None]:
    """The server follows another, which is away."""
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    ("word", "begin"), [*REASONS.items(), ("READONLY", replica)], ids=[*REASONS, "READONLY"]
)
def test_explain_says_why_nothing_moves_a_saga(tmp_path: Path, word: str, begin: Reason) -> None:
    """Whatever it is for which the server takes no writes; and no more when it takes them."""
    workflow = WorkflowBuilder("refused").add_step("one", "kp_do").build()
    with (
        EmbeddedServer(tmp_path) as server,
        redis.Redis.from_url(server.url) as client,
        open_office(server.url) as office,
    ):
        saga_id = office.start(workflow)
        with begin(server, client):
            told = office.explain(saga_id)
        first = told["reasons"][0]
        assert (first["code"], first["refusal"]) == ("no_writes", word)
        assert (
            f"takes no writes: {REFUSALS[word]}. Until that is fixed, nothing moves it"
            in told["text"]
        )
        assert "no_writes" not in {each["code"] for each in office.explain(saga_id)["reasons"]}
        office.runtime.edge.close()


ROOM: dict[str, str] = {"used_memory": "50", "maxmemory": "100", "maxmemory_policy": "noeviction"}
FULL = {**ROOM, "used_memory": "101"}


@pytest.mark.parametrize(
    ("info", "word"),
    [
        ({}, None),
        (ROOM, None),
        (FULL, "OOM"),
        ({**FULL, "mem_not_counted_for_evict": "2"}, None),
        ({**FULL, "maxmemory_policy": "allkeys-lru"}, None),
        ({**FULL, "role": "slave"}, "READONLY"),
        ({"aof_enabled": "1", "aof_last_write_status": "err"}, "MISCONF"),
        ({"aof_enabled": "0", "aof_last_write_status": "err"}, None),
        ({"rdb_last_bgsave_status": "err"}, None),
        ({"min_slaves_good_slaves": "0"}, "NOREPLICAS"),
        ({"min_slaves_good_slaves": "1"}, None),
    ],
)
def test_what_a_server_tells_of_itself_says_whether_it_takes_writes(
    info: dict[str, str], word: str | None
) -> None:
    """INFO alone is read; facts that only CONFIG has are left out."""
    assert refusal_of(ServerHealth(info)) == word


# ---- what doctor says ----

MUST = {"min-replicas-to-write": "1"}
FAILED = {"rdb_last_bgsave_status": "err"}
STOPS = {"save": "3600 1", "stop-writes-on-bgsave-error": "yes"}


@pytest.mark.parametrize(
    ("info", "config", "status"),
    [
        ({"rdb_last_bgsave_status": "ok"}, STOPS, "ok"),
        (FAILED, STOPS, "fail"),
        (FAILED, {**STOPS, "stop-writes-on-bgsave-error": "no"}, "warn"),
        (FAILED, {**STOPS, "save": ""}, "warn"),
        (FAILED, {}, "warn"),
        ({}, {}, "ok"),
    ],
)
def test_a_failed_snapshot_is_found(
    info: dict[str, str], config: dict[str, str], status: str
) -> None:
    """A failure where writes are refused because of it; where CONFIG is forbidden, a warning."""
    found = checks.snapshots(ServerHealth(info, config))
    assert (found.status, bool(found.fix)) == (status, status != "ok")
    assert ("refuses writes (MISCONF)" in found.message) is (status == "fail")


@pytest.mark.parametrize(
    ("info", "config", "status"),
    [
        ({"min_slaves_good_slaves": "0"}, MUST, "fail"),
        ({"min_slaves_good_slaves": "1"}, MUST, "ok"),
        ({"min_slaves_good_slaves": "1"}, {"min-replicas-to-write": "2"}, "fail"),
        ({"min_slaves_good_slaves": "0"}, {}, "fail"),
        ({"min_slaves_good_slaves": "1"}, {}, "ok"),
        ({}, MUST, "ok"),
        ({}, {}, "ok"),
    ],
)
def test_too_few_replicas_are_found(
    info: dict[str, str], config: dict[str, str], status: str
) -> None:
    """INFO names the good ones only where some are wanted; without CONFIG one at least is."""
    found = checks.replicas(ServerHealth(info, config))
    assert (found.status, bool(found.fix)) == (status, status != "ok")
    assert ("refuses writes (NOREPLICAS)" in found.message) is (status == "fail")
