"""Which server URLs does every library understand, and what does an error say of the others?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from celery import Celery

from multiagents.core.exceptions import InvalidInput
from multiagents.core.server_urls import celery_url, check, explicit, shown_url
from multiagents.core.settings import Settings, get_settings
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.hosting.runtime import attach
from multiagents.storage.client import Edge
from multiagents.transport.app_broker import steady_for
from multiagents.transport.direct_publish import same_server
from multiagents.transport.kombu_redis import NAME, SteadyTransport
from tests.support.command_line import cli
from tests.support.socket_server import SocketServer

STEADY = f"{SteadyTransport.__module__}:{SteadyTransport.__name__}"
SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("redis://h:1/0?protocol=3", "'protocol'.*leave it out: the connection finds"),
        ("redis://h:1/0?socket_timeout=5", "'socket_timeout'.*broker_transport_options"),
        ("redis://h:1/0?health_check_interval=5", "'health_check_interval'.*celeryconfig"),
        ("redis://h:1?db=3", "'db'.*redis://HOST:PORT/NUMBER"),
        (f"redis://h:1/0?password={SECRET}", "'password'.*before the host"),
        ("redis://h:1/0?ssl_ca_certs=/a", "'ssl_ca_certs'.*rediss://"),
        ("rediss://h:1/0?ssl_check_hostname=no", "'ssl_check_hostname'.*ssl_cert_reqs"),
        ("rediss://h:1/0?ssl_cert_reqs=perhaps", "not one of required, optional, none"),
        ("redis://h:1/zero", "the database part is not a number"),
        ("unix://tmp/s.sock", "absolute path; expected unix:///PATH"),
        ("unix:///tmp/s.sock?protocol=3", "'protocol'"),
        ("unix:///tmp/s.sock?db=two", "the database part is not a number"),
        ("redis+socket://", "absolute path"),
        ("amqp://h//", "expected redis://HOST:PORT"),
        (f"redis://:{SECRET}/x@h:1/0", "percent-encoded"),
        (f"redis://u:12/{SECRET}@h:1/0", "percent-encoded"),
        (f"redis://:{SECRET}#x@h:1/0", "percent-encoded"),
        (f"redis://:{SECRET}?x@h:1/0", "percent-encoded"),
        (f"redis://[{SECRET}@h:1/0", "percent-encoded"),
    ],
)
def test_a_url_that_some_library_dies_of_is_refused_with_what_to_write(
    url: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings refuse it and name the variable, without the password."""
    for variable in ("MULTIAGENTS_REDIS_URL", "MULTIAGENTS_STATE_URLS"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, url)
            get_settings.cache_clear()
            with pytest.raises(InvalidInput, match=f"{variable}.*{instead}") as told:
                get_settings()
        assert SECRET not in str(told.value)
    get_settings.cache_clear()
    with pytest.raises(InvalidInput, match=instead):
        Settings().at(url)
    with pytest.raises(InvalidInput, match=instead):
        RedisEventBus(url)


def test_the_command_line_says_what_to_write() -> None:
    """Every command gives one line."""
    done = cli("list", url=f"redis://:{SECRET}/x@h:1/0?protocol=3")
    assert (done.code, done.out) == (2, "")
    assert (
        "MULTIAGENTS_REDIS_URL: not the URL of a server; expected redis://HOST:PORT/NUMBER"
        in done.err
    )
    assert SECRET not in done.err


@pytest.mark.parametrize(
    ("url", "ours", "celerys"),
    [
        ("redis://u:p%2Fw@h:1/2", "redis://u:p%2Fw@h:1/2", "redis://u:p%2Fw@h:1/2"),
        ("unix:///tmp/s.sock", "unix:///tmp/s.sock", "redis+socket:///tmp/s.sock"),
        ("redis+socket:///tmp/s.sock", "unix:///tmp/s.sock", "redis+socket:///tmp/s.sock"),
        ("unix:///s?db=2", "unix:///s?db=2", "redis+socket:///s?virtual_host=2"),
        ("unix:///s?db=0", "unix:///s", "redis+socket:///s"),
        (
            "redis+socket://u:p@/s?virtual_host=3",
            "unix://u:p@/s?db=3",
            "redis+socket://u:p@/s?virtual_host=3",
        ),
    ],
)
def test_a_url_is_written_in_the_words_of_each_library(url: str, ours: str, celerys: str) -> None:
    """A rewritten URL stays the same when rewritten again, so two URLs can be compared."""
    check(url)
    assert (explicit(url), celery_url(url)) == (ours, celerys)
    assert (explicit(celerys), celery_url(ours)) == (ours, celerys)
    assert same_server(Settings(redis_url=url), celerys, {})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://u:{SECRET}@h:1/0?ssl_x=1", "redis://h:1/0"),
        (f"redis://u:{SECRET}/{SECRET}@h:1/0", "redis://h:1/0"),
        (f"redis://u:{SECRET}@{SECRET}@h:1/0", "redis://h:1/0"),
        (f"redis://u:{SECRET}#{SECRET}@h:1/0", "redis://h:1/0"),
        (f"redis://u:{SECRET}?{SECRET}@h:1/0", "redis://***"),
        (f"redis://h/0?password={SECRET}", "redis://h/0"),
        (f"sentinel://h/0?sentinel_password=x@{SECRET}", "sentinel://***"),
        (f"sentinel://:{SECRET}@a/0;sentinel://:{SECRET}@b/0", "sentinel://a/0;sentinel://b/0"),
        (f"unix://u:{SECRET}@/tmp/s.sock?db=1", "unix:///tmp/s.sock"),
        (f"{SECRET}@h", "***"),
    ],
)
def test_no_shown_url_has_a_password(url: str, shown: str) -> None:
    """A shown URL has no part of a password, whatever characters it has."""
    assert shown_url(url) == shown


def test_a_steady_transport_is_taken_for_a_unix_socket() -> None:
    """kombu uses the transport before ``+``; an app with sagas, and its clones, get ours."""
    app = Celery("socket", broker="redis+socket:///tmp/s.sock", set_as_current=False)
    assert steady_for(app) == STEADY
    app.conf.broker_transport = STEADY
    assert steady_for(app) == STEADY  # kombu ignores this name
    attach(app)
    assert steady_for(app) == ""
    with app.connection_for_read().clone() as connection:
        assert connection.get_transport_cls() is SteadyTransport
    late = Celery("late", broker="redis+socket:///tmp/s.sock", set_as_current=False)
    attach(late)
    late.conf.broker_transport = STEADY
    assert steady_for(late) == ""


def test_everything_connects_by_a_unix_socket(tmp_path: Path) -> None:
    """Store, event bus, a worker's transport, Celery's results and command line all use it."""
    with SocketServer(tmp_path) as server:
        url = f"{server.socket_url}?db=1"
        edge = Edge(url)
        assert edge.client.ping()
        edge.close()

        async def reach() -> None:
            async with RedisEventBus(url) as bus:
                assert await bus.dead_letters() == []

        asyncio.run(reach())
        app = Celery("socket", broker=celery_url(url), backend=celery_url(url))
        runtime = attach(app, Settings(redis_url=url))
        app.conf.broker_transport = NAME
        with app.connection_for_read() as connection:
            assert connection.default_channel.client.set("here", 1)
        app.backend.store_result("t", {"n": 1}, "SUCCESS")
        assert app.AsyncResult("t").get(timeout=5) == {"n": 1}
        assert runtime.edge.client.get("here") == b"1"  # one database for all of them
        assert "reachable" in cli("doctor", url=url).out
        app.close()
        runtime.edge.close()
