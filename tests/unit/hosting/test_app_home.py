"""Where does an app keep its sagas if only its own settings name a server?"""

from __future__ import annotations

import asyncio
import importlib
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from celery import Celery

from multiagents import NoServer, WorkflowBuilder, task, worker
from multiagents.core.exceptions import InvalidInput
from multiagents.core.settings import DEFAULT_REDIS_URL, REDIS_URL, STATE_URLS, Settings
from multiagents.hosting import attached
from multiagents.hosting.app import make_app
from multiagents.hosting.bootstep import _log_home
from multiagents.hosting.runtime import attach
from multiagents.storage.keys import SagaKeys
from multiagents.transport.app_urls import engine_url, urls_of
from multiagents.transport.direct_publish import same_server
from tests.support.command_line import cli

BROKER, BACKEND = "redis://broker:1/1", "redis://backend:1/2"
MASTER = {"master_name": "main"}
SECRET = "hunter2"

APP = """
from celery import Celery
from multiagents import attach
app = Celery("shop", broker={broker!r}, backend={backend!r})
attach(app)
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (REDIS_URL, STATE_URLS, "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)


def shop(**conf: Any) -> Celery:
    """A team's app that connects to nothing."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(conf)
    return app


def home_of(app: Celery, *, url: str | None = None, **settings: Any) -> tuple[str, str]:
    """The server of an app's sagas, and the setting that names it."""
    home = attach(app, Settings(**settings), url=url).settings.home
    return home.url, home.named_by


# ---- what comes first ----


def test_the_apps_own_broker_keeps_its_sagas() -> None:
    """Without another setting, sagas are on the app's broker."""
    found = home_of(shop(broker_url=BROKER, result_backend=BACKEND))
    assert found == (BROKER, "broker_url of app 'shop'")


def test_a_result_backend_keeps_them_where_the_broker_is_no_redis() -> None:
    """An app on RabbitMQ with results on Redis keeps its sagas there."""
    found = home_of(shop(broker_url="amqp://u:p@h//", result_backend=BACKEND))
    assert found == (BACKEND, "result_backend of app 'shop'")


def test_the_variable_comes_before_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both variables count, from the environment or from the program."""
    app = shop(broker_url=BROKER)
    assert home_of(app, redis_url="redis://said:1/0") == ("redis://said:1/0", REDIS_URL)
    monkeypatch.setenv(REDIS_URL, "redis://variable:1/0")
    assert home_of(shop(broker_url=BROKER)) == ("redis://variable:1/0", REDIS_URL)
    monkeypatch.setenv(STATE_URLS, "redis://state:1/0")
    assert home_of(shop(broker_url=BROKER)) == ("redis://state:1/0", STATE_URLS)


def test_a_given_url_comes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """It also comes before the servers of several shards."""
    monkeypatch.setenv(REDIS_URL, "redis://variable:1/0")
    monkeypatch.setenv(STATE_URLS, "redis://one:1/0,redis://two:1/0")
    app = shop(broker_url=BROKER)
    found = home_of(app, url="redis://given:1/0")
    assert found == ("redis://given:1/0", "attach(app, url=...)")
    assert attach(app).settings.servers == {"redis://given:1/0": (0,)}


def test_an_app_is_attached_with_one_url_only() -> None:
    """A second URL is refused instead of ignored."""
    app = shop(broker_url=BROKER)
    runtime = attach(app, Settings())
    assert attach(app, url=BROKER) is runtime
    with pytest.raises(InvalidInput, match=r"attached already.* redis://broker:1/1, named by"):
        attach(app, url="redis://other:1/0")


def test_an_app_without_any_redis_is_told_both_ways_to_name_one() -> None:
    """The first use raises, not `attach`, which may come before the settings."""
    runtime = attach(shop(broker_url=f"amqp://u:{SECRET}@h//", result_backend="rpc://"), Settings())
    with pytest.raises(InvalidInput) as refused:
        runtime.call("list")
    text = str(refused.value)
    assert "app 'shop' has no Redis for its sagas" in text
    assert "broker_url amqp:// and result_backend rpc://" in text
    assert 'attach(app, url="redis://HOST:PORT/NUMBER")' in text
    assert f"{REDIS_URL} in every process of the app" in text
    assert SECRET not in text


def test_a_worker_without_any_redis_ends_with_one_line(tmp_path: Path) -> None:
    """The worker ends before it takes a message, without a traceback of Celery's."""
    (tmp_path / "rabbit.py").write_text(APP.format(broker="memory://", backend="rpc://"))
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MULTIAGENTS_")}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "rabbit", "worker", "-P", "solo"],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "error: app 'shop' has no Redis for its sagas" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_app_without_any_redis_runs_in_eager_mode() -> None:
    """Eager mode uses no server, so the app names none."""

    @worker("home_say")
    def say(context: dict[str, Any]) -> dict[str, Any]:
        return {"said": context["word"]}

    app = shop(broker_url="memory://", task_always_eager=True)
    said = WorkflowBuilder("home_say").add_step("say", say).build()
    assert attach(app, Settings()).start_saga.delay(said, {"word": "yes"}).get() == {"said": "yes"}


def test_the_packages_own_app_follows_its_celeryconfig() -> None:
    """Without one, or with a broker other than Redis, the variable's default holds."""
    for conf, found in (
        ({"broker_url": BROKER}, (BROKER, "broker_url of app 'multiagents'")),
        ({}, (DEFAULT_REDIS_URL, REDIS_URL)),
        ({"broker_url": "amqp://h//"}, (DEFAULT_REDIS_URL, REDIS_URL)),
        ({"broker_url": "amqp://h//", "result_backend": "rpc://"}, (DEFAULT_REDIS_URL, REDIS_URL)),
    ):
        app = make_app(Settings())
        app.conf.update(conf)
        assert home_of(app) == found


# ---- when it is looked for ----


def test_settings_that_come_after_attach_count() -> None:
    """They may come from `config_from_object`, a lambda or an assignment."""
    app = Celery("shop", set_as_current=False)
    runtime = attach(app, Settings())
    app.config_from_object({"CELERY_BROKER_URL": BROKER}, namespace="CELERY")
    assert runtime.settings.home.url == BROKER
    app = Celery("shop", set_as_current=False)
    runtime = attach(app, Settings())
    app.conf.broker_url = BROKER
    assert runtime.edge.url == BROKER


def test_what_was_found_once_holds() -> None:
    """An app's server stays the same, so its sagas never split over two."""
    app = shop(broker_url=BROKER)
    runtime = attach(app, Settings())
    assert runtime.settings.home.url == BROKER
    app.conf.broker_url = BACKEND
    assert runtime.settings.home.url == BROKER


@pytest.mark.parametrize(
    ("conf", "url", "setting"),
    [
        ({"broker_write_url": BACKEND, "broker_url": BROKER}, BACKEND, "broker_write_url"),
        ({"broker_read_url": BACKEND, "broker_url": BROKER}, BROKER, "broker_url"),
        ({"broker_url": [BROKER]}, BROKER, "broker_url"),
        ({"broker_url": f"{BROKER};{BROKER}"}, BROKER, "broker_url"),
        (
            {"broker_url": "sentinel://a:1/0;sentinel://b:1/0", "broker_transport_options": MASTER},
            "sentinel://a:1/0;sentinel://b:1/0?master_name=main",
            "broker_url",
        ),
    ],
)
def test_every_way_to_name_a_broker_is_read(conf: dict[str, Any], url: str, setting: str) -> None:
    """The broker may be a URL, a list, several URLs in one, or Sentinels."""
    assert home_of(shop(**conf)) == (url, f"{setting} of app 'shop'")


def test_a_list_of_brokers_keeps_sagas_on_its_first_and_says_so() -> None:
    """Celery fails over to the next broker; sagas wait for the first."""
    app = shop(broker_url=[BROKER, BACKEND])
    settings = attach(app, Settings()).settings
    assert settings.home.url == BROKER
    with structlog.testing.capture_logs() as told:
        _log_home(settings.home)
    assert [line["log_level"] for line in told] == ["info", "warning"]
    assert "first of 2 servers, and sagas do not move to another" in told[1]["event"]
    assert not same_server(settings, app.conf.broker_url, {})
    assert same_server(settings, BROKER, {})


def test_who_takes_the_packages_own_app_in_such_a_program_is_warned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`multiagents.start_saga` uses neither an attached app nor its Redis."""
    attach(shop(broker_url=f"redis://:{SECRET}@broker:1/1"), Settings())
    own = attach(Celery("multiagents", broker="redis://127.0.0.1:6379/0"), Settings())
    with structlog.testing.capture_logs() as told:
        assert own.settings.home == own.settings.home
    (line,) = told
    assert "look for sagas at redis://127.0.0.1:6379/0" in line["event"]
    assert "those of app 'shop' are at redis://broker:1/1" in line["event"]
    assert SECRET not in line["event"]


def test_a_variable_that_names_another_server_than_attach_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`multiagents.start_saga` writes where MULTIAGENTS_REDIS_URL says."""
    monkeypatch.setenv(REDIS_URL, "redis://variable:1/0")
    attach(shop(broker_url=BROKER), Settings(), url="redis://given:1/0")
    own = attach(make_app(Settings()), Settings())
    with structlog.testing.capture_logs() as told:
        assert own.edge.url == own.settings.home.url == "redis://variable:1/0"
    (line,) = told
    assert "look for sagas at redis://variable:1/0" in line["event"]
    assert "those of app 'shop' are at redis://given:1/0" in line["event"]
    same = attach(make_app(Settings()), Settings())
    attach(shop(broker_url=BROKER), Settings(), url="redis://variable:1/0")
    with structlog.testing.capture_logs() as told:
        assert same.settings.home.named_by == REDIS_URL
    assert told == []


def test_an_unreachable_server_tells_where_the_sagas_of_the_programs_app_are() -> None:
    """The error itself says so, because an early log line is easily missed."""
    attach(shop(broker_url=f"redis://:{SECRET}@broker:1/1"), Settings())
    own = attach(Celery("multiagents", broker="redis://127.0.0.1:1/0"), Settings())
    text = str(own.no_server(ConnectionError("away"), 1.0))
    assert "the sagas of app 'shop' are at redis://broker:1/1: use start_saga, sagas and" in text
    assert SECRET not in text
    attach(shop(broker_url="redis://127.0.0.1:1/0"), Settings())
    assert "attach(app)" not in str(own.no_server(ConnectionError("away"), 1.0))


def test_an_unreachable_server_names_attach_where_it_was_never_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the file of the program's own app."""
    (tmp_path / "home_alone.py").write_text("import celery; app = celery.Celery('alone')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attached, "_latest", None)
    app = importlib.import_module("home_alone").app
    monkeypatch.setattr("celery._state.default_app", app)
    own = attach(Celery("multiagents", broker="redis://127.0.0.1:1/0"), Settings())
    text = str(own.no_server(ConnectionError("away"), 1.0))
    how = "call multiagents.attach(app) where it is made (home_alone.py)"
    assert f"if app 'alone' is to host the sagas, {how}" in text


# ---- in the engine's words ----


@pytest.mark.parametrize(
    ("url", "said", "found"),
    [
        ("redis://:p%2Fw@h:1/2?heartbeat=10", {}, "redis://:p%2Fw@h:1/2"),
        ("redis://h:1//2", {}, "redis://h:1//2"),
        ("rediss://h:1/0?ssl_cert_reqs=none", {}, "rediss://h:1/0?ssl_cert_reqs=none"),
        ("rediss://h:1/0", {"tls": True}, "rediss://h:1/0"),
        (
            "redis://h:1/0",
            {"tls": {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/etc/ca.pem"}},
            "rediss://h:1/0?ssl_cert_reqs=REQUIRED&ssl_ca_certs=/etc/ca.pem",
        ),
        ("rediss://h/0", {"tls": {"ssl_cert_reqs": None}}, "rediss://h/0?ssl_cert_reqs=none"),
        ("redis+socket:///s?virtual_host=3", {}, "redis+socket:///s?virtual_host=3"),
        ("socket:///s", {}, "redis+socket:///s"),
        (
            "sentinel://:p@a:1/2",
            {"options": {**MASTER, "sentinel_kwargs": {"password": "q", "socket_timeout": 1}}},
            "sentinel://:p@a:1/2?sentinel_password=q&master_name=main",
        ),
    ],
)
def test_what_celery_says_beside_a_url_is_part_of_it(
    url: str, said: dict[str, Any], found: str
) -> None:
    """The rewritten URL keeps the server and drops Celery's own connection options."""
    assert engine_url(url, **said) == found


@pytest.mark.parametrize(
    ("url", "said", "why"),
    [
        ("redis://h/0", {"tls": {"ssl_check_hostname": False}}, "TLS setting 'ssl_check_hostname'"),
        ("rediss://h/0?ssl_check_hostname=false", {}, "the option 'ssl_check_hostname'"),
        ("sentinel://h/0", {}, "must name the primary"),
        ("sentinel://h/0", {"options": MASTER, "tls": True}, "behind Sentinels with TLS"),
        (
            "sentinel://h/0",
            {"options": {**MASTER, "sentinel_kwargs": {"ssl": True}}},
            "behind Sentinels with 'ssl'",
        ),
    ],
)
def test_what_sagas_cannot_connect_to_is_refused_by_name(
    url: str, said: dict[str, Any], why: str
) -> None:
    """An error is better than sagas on another server than the intended one."""
    with pytest.raises(InvalidInput, match=why):
        engine_url(url, **said)


def test_a_broker_that_sagas_cannot_use_is_named_with_the_ways_out() -> None:
    """Sagas do not move to the result backend without a request."""
    app = shop(broker_url="sentinel://a:1/0", result_backend=BACKEND)
    with pytest.raises(InvalidInput, match=r"^broker_url of app 'shop': a Sentinel URL.* attach\("):
        _ = attach(app, Settings()).settings.home


def test_the_sentinels_of_one_primary_are_one_server() -> None:
    """Any other list means as many servers as it has entries."""
    assert urls_of(["sentinel://a/0", "sentinel://b/0"]) == ["sentinel://a/0;sentinel://b/0"]
    assert urls_of(f"{BROKER}; {BACKEND}") == [BROKER, BACKEND]
    assert urls_of(None) == []


# ---- with a server ----


def test_a_saga_is_stored_and_sent_in_one_step_on_the_apps_broker(redis_url: str) -> None:
    """One script writes the record and the queue's message, without a publish."""
    url = redis_url.removesuffix("/0") + "/5"
    app = shop(broker_url=f"{url}?heartbeat=10", result_backend="rpc://")
    runtime = attach(app, Settings())
    workflow = WorkflowBuilder("home").add_step("say", task("shop.say", args=[], queue="home"))
    saga_id = runtime.call("start", workflow.build(), {})
    assert runtime.edge.url == url
    assert runtime.edge.client.exists(SagaKeys(saga_id).saga)
    assert same_server(runtime.settings, app.conf.broker_url, {})
    assert runtime.edge.client.llen("home") == 1


def test_an_attached_app_has_both_faces(redis_url: str) -> None:
    """`sagas` serves threads and `orchestrator` event loops, both on the app's Redis."""
    runtime = attach(shop(broker_url=redis_url), Settings())
    workflow = WorkflowBuilder("home_faces").add_step("say", task("shop.say", args=[])).build()

    async def start() -> str:
        async with runtime.orchestrator(workflow) as orchestrator:
            saga_id = await orchestrator.execute_workflow("home_faces", {}, idempotency_key="k")
            assert (await orchestrator.get_status(saga_id))["state"] == "running"
            return saga_id

    assert runtime.sagas.get(asyncio.run(start()))["workflow"] == "home_faces"


def test_an_error_names_what_names_the_server() -> None:
    """The error names the deciding setting, not an unset variable."""
    runtime = attach(shop(broker_url=f"redis://:{SECRET}@127.0.0.1:1/0"), Settings())
    with pytest.raises(NoServer) as refused:
        runtime.call("list")
    assert "127.0.0.1:1/0" in str(refused.value)
    assert "start one, or correct broker_url of app 'shop'" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_doctor_says_where_an_apps_sagas_are_and_who_says_so(
    redis_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator can compare two processes by it."""
    (tmp_path / "home_shop.py").write_text(APP.format(broker=redis_url, backend=None))
    (tmp_path / "home_rabbit.py").write_text(APP.format(broker="amqp://h//", backend="rpc://"))
    monkeypatch.syspath_prepend(tmp_path)
    found = {
        each["name"]: each
        for each in cli("doctor", "-A", "home_shop", "--json", url=None).json["checks"]
    }
    assert found["place"]["message"] == f"{redis_url}, named by broker_url of app 'shop'"
    refused = cli("doctor", "-A", "home_rabbit", "--json", url=None).json["checks"][0]
    assert (refused["name"], refused["status"]) == ("server", "fail")
    assert "app 'shop' has no Redis for its sagas" in refused["message"]
