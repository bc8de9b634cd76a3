"""What does the doctor find on a real server, and how does it judge given answers?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery

from multiagents.cli.doctor import broker, checks
from multiagents.core.clock import FakeClock, SystemClock
from multiagents.core.settings import Settings
from multiagents.engine.catalog import Catalog
from multiagents.storage.client import Edge
from multiagents.storage.health import DueHealth, ServerHealth
from multiagents.storage.keys import Shard
from multiagents.workflows.builder import WorkflowBuilder, task
from tests.support.command_line import NO_SERVER, cli
from tests.support.doctor import publish, statuses
from tests.support.processes import free_port


@contextmanager
def server_setting(url: str, name: str, value: str) -> Iterator[None]:
    """Change a parameter of the server, and restore it."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        before = client.config_get(name)[name]
        client.config_set(name, value)
        try:
            yield
        finally:
            client.config_set(name, before)


def test_a_healthy_system_passes_every_check(redis_url: str) -> None:
    """With a worker and our own server every check passes; exit code 0."""
    publish(redis_url)
    found = cli("doctor", "--json", url=redis_url).json
    assert found["ok"] is True
    assert [check for check in found["checks"] if check["status"] == "fail"] == []
    assert {"name", "status", "message", "fix"} == found["checks"][0].keys()
    told = cli("doctor", url=redis_url)
    assert told.code == 0
    assert "Valkey" in told.out or "Redis" in told.out


def test_no_worker_is_a_failure(redis_url: str) -> None:
    """Without a worker no saga moves: exit code 1."""
    assert statuses(redis_url)["workers"] == "fail"


def test_a_queue_that_nobody_consumes_is_a_failure(redis_url: str) -> None:
    """The finding names the queue and the command that helps."""
    publish(redis_url, worker_queue="gpu")
    assert statuses(redis_url)["queues"] == "fail"
    assert "-Q gpu" in cli("doctor", url=redis_url).out


def test_an_unreachable_server_is_a_finding(redis_url: str) -> None:
    """Checks that need no server still run; the password stays hidden."""
    url = NO_SERVER.replace("//", "//:s3cret@")
    done = cli("doctor", "--json", url=url)
    assert (done.code, done.err) == (1, "")
    assert "s3cret" not in done.out
    assert statuses(url)["server"] == "fail"
    assert statuses(url)["accepted content"] == "ok"


def test_the_settings_of_a_named_app_are_judged(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor judges the named app's settings, not those of the package."""
    (tmp_path / "judged_app.py").write_text(
        "from celery import Celery\n"
        "from multiagents import attach\n"
        "app = Celery('judged', broker='redis://127.0.0.1:1/0', set_as_current=False)\n"
        "app.conf.accept_content = ['json', 'pickle']\n"
        "attach(app)\n"
    )
    monkeypatch.chdir(tmp_path)
    publish(redis_url)
    judged = ("accepted content", "result backend")
    ours, theirs = statuses(redis_url), statuses(redis_url, "-A", "judged_app")
    assert [ours[name] for name in judged] == ["ok", "ok"]
    assert [theirs[name] for name in judged] == ["warn", "warn"]


@pytest.mark.parametrize("name", ["no_such_module", "json", "json:dumps"])
def test_what_is_no_app_is_wrong_use(redis_url: str, name: str) -> None:
    """A name that is no app gives an error and no finding about a server."""
    done = cli("doctor", "--app", name, url=redis_url)
    assert (done.code, done.out) == (2, "")
    assert name in done.err
    assert "MODULE:NAME" in done.err


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("appendonly", "no", "append-only file"),
        ("appendfsync", "no", "append-only file"),
        ("maxmemory-policy", "allkeys-lru", "eviction"),
    ],
)
def test_a_risky_setting_is_a_warning(redis_url: str, name: str, value: str, check: str) -> None:
    """A warning alone keeps exit code 0."""
    publish(redis_url)
    with server_setting(redis_url, name, value):
        assert statuses(redis_url)[check] == "warn"
        assert cli("doctor", url=redis_url).code == 0


def test_full_memory_is_found(redis_url: str) -> None:
    """Above 80 % of maxmemory the doctor warns; above 95 % the check fails."""
    publish(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        used = client.info("memory")["used_memory"]
    with server_setting(redis_url, "maxmemory", str(int(used * 1.02))):
        assert statuses(redis_url)["memory"] == "fail"


def test_a_server_that_forbids_config_is_not_an_error(redis_url: str) -> None:
    """Where CONFIG and INFO are forbidden, as on rented servers, the doctor warns."""
    publish(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser(
            "rented",
            enabled=True,
            passwords=["+pw"],
            keys=["*"],
            channels=["*"],
            commands=["+@all", "-config", "-info"],
        )
        try:
            found = statuses(redis_url.replace("//", "//rented:pw@"))
        finally:
            client.acl_deluser("rented")
    assert found["server"] == found["append-only file"] == found["eviction"] == "warn"
    assert found["workers"] == "ok"


def test_a_wrong_password_is_told_without_it(redis_url: str) -> None:
    """The finding says that the server refused the login, without the password."""
    done = cli("list", url=redis_url.replace("//", "//nobody:s3cret@"))
    assert done.code == 2
    assert "rejects the user or password" in done.err
    assert "s3cret" not in done.err


def test_overdue_work_is_found(redis_url: str) -> None:
    """The doctor reports due work that no sweep has taken."""
    publish(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.zadd(Shard().due, {"d|some-saga": 1.0})
    assert statuses(redis_url)["due set"] == "fail"


def test_celerys_settings_are_judged(redis_url: str) -> None:
    """A missing result backend and pickle are warnings, each with the line to write."""
    assert checks.result_backend(None).status == "warn"
    assert checks.result_backend("disabled://").status == "warn"
    assert checks.result_backend("redis://:s3cret@h").message == "set"
    assert checks.serializers(["json", "pickle"]).status == "warn"
    assert checks.serializers(["json"]).status == "ok"


def test_a_step_longer_than_the_visibility_timeout_is_found() -> None:
    """The broker would deliver such a step's message a second time."""
    workflow = WorkflowBuilder("slow").add_step("train", "train", timeout_s=7200).build()
    found = checks.visibility({}, [workflow])
    assert found.status == "warn"
    assert "slow.train" in found.message
    assert checks.visibility({"visibility_timeout": 10_000}, [workflow]).status == "ok"


def test_the_time_out_of_a_plain_task_counts_too() -> None:
    """A long plain task's message would be delivered a second time."""
    long = task("shop.train", timeout_s=7200)
    workflow = WorkflowBuilder("slow").add_step("train", long).build()
    assert checks.visibility({}, [workflow]).status == "warn"
    undone = WorkflowBuilder("undone").add_step("train", "train", compensation=long).build()
    assert checks.visibility({}, [undone]).status == "warn"


def test_of_rabbitmq_its_own_limit_is_judged_and_no_visibility_time_out() -> None:
    """RabbitMQ has no visibility timeout, but redelivers unacknowledged messages after half an
    hour.
    """
    long = task("shop.train", timeout_s=7200)
    workflow = WorkflowBuilder("slow").add_step("train", long).build()
    app = Celery(broker="amqp://127.0.0.1//", set_as_current=False)
    (found,) = broker.redelivery(app, [workflow])
    assert (found.name, found.status) == ("acknowledgement", "warn")
    assert "slow.train may take 7200 s" in found.message
    (found,) = broker.redelivery(app, [])
    assert found.status == "ok"


def test_a_broker_apart_from_the_sagas_is_asked_itself(redis_url: str) -> None:
    """A separate broker is checked on its own, and its URL is shown without the password."""
    settings = Settings(redis_url=redis_url)
    own = Celery(broker=redis_url, set_as_current=False)
    assert list(broker.of_broker(own, settings)) == []
    away = Celery(broker=f"amqp://u:s3cret@127.0.0.1:{free_port()}//", set_as_current=False)
    (found,) = broker.of_broker(away, settings)
    assert (found.status, "s3cret" in str(found)) == ("fail", False)
    other = Celery(broker=redis_url.replace("/0", "/5"), set_as_current=False)
    (found,) = broker.of_broker(other, settings)
    assert found.status == "ok"


@pytest.mark.parametrize(("late_s", "status"), [(1, "ok"), (30, "warn"), (90, "fail")])
def test_the_age_of_overdue_work_decides(late_s: int, status: str) -> None:
    """A sweep takes due work within 1 s; 10 s late is a warning, 60 s a failure."""
    clock = FakeClock()
    health = DueHealth(3, 1, clock.now_ms() - late_s * 1000)
    assert checks.due(health, clock.now_ms()).status == status


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"redis_version": "7.2.4"}, "ok"),
        ({"redis_version": "6.0.9"}, "fail"),
        ({"redis_version": "7.2.4", "role": "slave"}, "fail"),
        ({"redis_version": "7.2.4", "cluster_enabled": "1"}, "fail"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "ok"),
    ],
)
def test_an_unfit_server_is_a_failure(info: dict[str, str], status: str) -> None:
    """A server that is too old, a replica or a cluster fails the check."""
    assert checks.version(ServerHealth(info)).status == status


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "key", "1 key"),
        (3, "key", "3 keys"),
        (2, "entry", "2 entries"),
        (0, "class", "0 classes"),
    ],
)
def test_numbers_have_the_right_plural(number: int, noun: str, text: str) -> None:
    """A noun in -y after a vowel only gets an s: the finding on evictions counted "keies"."""
    assert checks.count_of(number, noun) == text


def test_sagas_that_wait_for_a_person_are_named() -> None:
    """The finding names a few of the sagas that need attention, and counts all."""
    ids = [f"saga-{number}" for number in range(9)]
    found = checks.attention(ids, count=20)
    assert found.status == "warn"
    assert "20 sagas" in found.message
    assert "and 15 more" in found.message


def test_dead_letters_are_counted_and_a_list_with_gaps_is_told() -> None:
    """The finding gives number and age; an incomplete list is no proof that all is well."""
    found = checks.dead_letters(2, 1_000, 7_201_000, [])
    assert (found.status, "2 steps" in found.message, "2 h" in found.message) == (
        "warn",
        True,
        True,
    )
    assert checks.dead_letters(0, None, 0, []).status == "ok"
    assert "reindex" in checks.dead_letters(0, None, 0, ["s"]).fix


def test_a_shell_is_told_who_lacks_what(redis_url: str) -> None:
    """`workers` has a column for missing functions if any worker lacks one."""
    publish(redis_url)
    assert "LACKS" not in cli("workers", url=redis_url).out
    edge = Edge(redis_url)
    edge.run(Catalog(SystemClock()).publish("empty@host", ["io"], []))
    edge.close()
    told = cli("workers", url=redis_url).out
    heads = ["WORKER", "QUEUES", "LAST", "SEEN", "LACKS", "FUNCTIONS"]
    assert told.splitlines()[0].split() == heads
    rows = {row["hostname"]: row for row in cli("workers", "--json", url=redis_url).lines}
    assert rows["empty@host"]["lacks"] == {"io": ["charge"]}
    assert rows["w@host"]["lacks"] == {}
    assert rows["w@host"]["worker"] == "w@host"
    assert rows["w@host"]["functions"] == rows["w@host"]["workers"] == {"charge": "io"}
