"""Does `doctor` find unwritable keys, damaged sagas and stuck items?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from multiagents.cli.doctor.keys import stuck
from multiagents.storage.client import Edge
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.storage.rights import of_list, of_result
from tests.support.command_line import cli
from tests.support.doctor import NOW, publish, statuses

CANNOT = "cannot be written"


@contextmanager
def user(url: str, *rules: str) -> Iterator[str]:
    """The server's URL for a user with these rights."""
    with redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rules)
        try:
            yield url.replace("redis://", "redis://app:pw@")
        finally:
            client.acl_deluser("app")


def finding(url: str, name: str) -> dict[str, str]:
    report = cli("doctor", "--json", url=url).json
    (found,) = [check for check in report["checks"] if check["name"] == name]
    return found


def test_a_queue_that_is_no_list_is_a_failure(redis_url: str) -> None:
    """The doctor names its type, and writes nothing to find out."""
    publish(redis_url, worker_queue="orders")
    with redis.Redis.from_url(redis_url) as client:
        client.hset("orders", "x", 1)
        found = finding(redis_url, "rights")
        assert found["status"] == "fail"
        assert "'orders': the key is a hash, and has to be a list" in found["message"]
        assert client.hgetall("orders") == {b"x": b"1"}
        client.delete("orders")
        client.rpush("orders", "waits")
        assert finding(redis_url, "rights")["status"] == "ok"
        assert client.lrange("orders", 0, -1) == [b"waits"]


@pytest.mark.parametrize("asks", [True, False])
def test_a_user_without_the_right_to_a_queue_is_told(redis_url: str, asks: bool) -> None:
    """The finding is the same whether or not the server allows ACL DRYRUN."""
    rules = ["+@all", "~ma:*", "~io", "~celery-task-meta-*", "&*", "+acl" if asks else "-acl"]
    publish(redis_url, worker_queue="orders")
    with user(redis_url, *rules) as url:
        found = finding(url, "rights")
    assert found["status"] == "fail"
    assert "queue 'orders'" in found["message"]
    assert "queue 'io'" not in found["message"]
    assert "result" not in found["message"]


@pytest.mark.parametrize("acl", ["+acl", "-acl"])
@pytest.mark.parametrize("lacks", ["key", "channel"])
def test_a_user_without_the_right_to_results_is_told(redis_url: str, lacks: str, acl: str) -> None:
    """The finding covers the right to store results and the right to publish them."""
    key = "~other" if lacks == "key" else "~result"
    channel = "&other" if lacks == "channel" else "&result"
    with user(redis_url, "+@all", key, channel, acl) as url:
        edge = Edge(url)
        try:
            assert edge.run(of_result("result"))
        finally:
            edge.close()
    with user(redis_url, "+@all", "~result", "&result", acl) as url:
        edge = Edge(url)
        try:
            assert edge.run(of_result("result")) == ""
        finally:
            edge.close()


def test_a_right_that_the_engine_does_not_need_is_not_missed(redis_url: str) -> None:
    """A user with only the engine's commands passes."""
    with user(redis_url, "+lpush", "+type", "~io") as url:
        edge = Edge(url)
        try:
            assert edge.run(of_list("io")) == ""
        finally:
            edge.close()


def test_looking_leaves_no_trace(redis_url: str) -> None:
    """The check changes no existing queue and creates none."""
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("full", "a", "b")
        for rules in (["+@all", "~*", "&*"], ["+@all", "-acl", "~*", "&*"]):
            with user(redis_url, *rules) as url:
                edge = Edge(url)
                try:
                    looks = [edge.run(of_list("full")), edge.run(of_list("empty"))]
                    looks += [edge.run(of_result("result"))]
                finally:
                    edge.close()
            assert looks == ["", "", ""]
            assert client.keys("*") == [b"full"]
            assert client.lrange("full", 0, -1) == [b"a", b"b"]


def test_a_damaged_saga_is_named_with_what_to_do(redis_url: str) -> None:
    """The doctor examines everything else, too."""
    publish(redis_url)
    keys, shard = SagaKeys("half"), Shard(0)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(keys.saga, "w", "x")
        client.zadd(shard.sagas, {"half": 1})
        found = finding(redis_url, "damaged sagas")
        assert found["status"] == "fail"
        assert "half (" in found["message"]
        assert "multiagents remove" in found["fix"]
        done = cli("remove", "half", "--json", "--reason", "never began", url=redis_url)
        assert (done.code, done.json["keys"]) == (0, 1)
        assert finding(redis_url, "damaged sagas")["status"] == "ok"


def test_the_command_line_shows_and_lists_a_damaged_saga(redis_url: str) -> None:
    """`list` and `show` report the damage; `remove` refuses sound sagas."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset(SagaKeys("half").saga, "w", "x")
        client.zadd(Shard(0).sagas, {"half": 1})
    assert "damaged" in cli("list", url=redis_url).out
    (row,) = map(json.loads, cli("list", "--json", url=redis_url).out.splitlines())
    assert row["state"] == "damaged"
    for command in ("show", "explain", "history", "terminate", "watch"):
        told = cli(command, "half", url=redis_url)
        assert told.code == 2
        assert "multiagents remove half" in told.err
    assert "no saga" in cli("remove", "nobody", url=redis_url).err
    told = cli("remove", "half", url=redis_url)
    assert (told.code, "half is removed" in told.out) == (0, True)


def test_a_key_of_the_engines_that_is_damaged_hides_nothing_else(redis_url: str) -> None:
    """The damaged part is a finding, and the other checks still report."""
    publish(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set(Shard(0).due, "no zset")
        found = statuses(redis_url)
        client.delete(Shard(0).due)  # other tests use this server
    assert found["sagas"] == "fail"
    assert found["accepted content"] == "ok"


def test_items_that_fail_again_and_again_are_named() -> None:
    """The doctor names an item that has failed several times and still fails."""
    about: dict[str, Any] = {
        "o|a|x": (3, NOW, "NotTaken: 'orders'"),
        "o|b|x": (2, NOW, "may pass"),
        "o|c|x": (9, NOW - 600_000, "is over"),
    }
    found = stuck(about, NOW)
    assert found.status == "warn"
    assert "1 cannot be handled: o|a|x (NotTaken: 'orders')" in found.message
    assert stuck({}, NOW).status == "ok"
