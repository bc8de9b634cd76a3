"""Do sagas run where the server is reached over TLS, and only if its certificate is trusted?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from multiagents.core.events import StatusEvent
from multiagents.core.server_urls import celery_url, explicit
from multiagents.core.settings import Settings
from multiagents.devserver.server import EmbeddedServer
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.hosting.app import make_app
from multiagents.transport.direct_publish import same_server
from multiagents.transport.publisher import HastyBroker
from tests.support.command_line import cli
from tests.support.kill_rig import Rig
from tests.support.tls import Secured, secured

BARE = "rediss://h:1/0"
CHECKED = f"{BARE}?ssl_cert_reqs=required"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server behind TLS, with a certificate that no system trusts."""
    with (
        EmbeddedServer(tmp_path_factory.mktemp("server")) as plain,
        secured(plain.port, tmp_path_factory.mktemp("tls")) as found,
    ):
        yield found


@pytest.mark.processes
@pytest.mark.parametrize("options", [(), ("ssl_cert_reqs=CERT_REQUIRED",)], ids=["bare", "celery"])
def test_sagas_run_over_tls(server: Secured, tmp_path: Path, options: tuple[str, ...]) -> None:
    """State, broker and results by one URL, with or without Celery's option; the fast way too."""
    rig = Rig(server.url(*options), 0, tmp_path)
    with rig.worker() as worker:
        worker.wait_ready()
        assert rig.runtime.start_saga.delay("kp_completes", {}).get(timeout=20) == {"two": 1}
        assert rig.wait_settled(rig.start("kp_breaks"))["state"] == "compensated"
        assert "WorkerTransport" in worker.log  # without kombu's ack emulation
    assert same_server(rig.runtime.settings, rig.app.conf.broker_url, {})  # commits send
    assert HastyBroker(rig.app).answers()  # and a sweep could
    rig.close()


@pytest.mark.processes
def test_the_command_line_and_the_event_bus_use_tls(server: Secured) -> None:
    """They are given the same URL."""

    async def publish() -> None:
        async with RedisEventBus(server.url()) as bus:
            await bus.publish(StatusEvent(transaction_id="s", state="running"))

    asyncio.run(publish())
    assert "reachable" in cli("doctor", url=server.url()).out


@pytest.mark.processes
def test_a_certificate_that_nobody_trusts_is_refused(server: Secured) -> None:
    """The state's client refuses it with the reason; the broker's client refuses it too."""
    url = server.url(trusted=False)
    done = cli("list", url=url)
    assert (done.code, done.out) == (2, "")
    assert "its certificate is not trusted" in done.err
    assert "ssl_ca_certs=FILE" in done.err
    app = make_app(Settings(redis_url=url))
    with app.connection_for_write() as broker, pytest.raises(OperationalError, match="certificate"):
        broker.ensure_connection(max_retries=1, interval_start=0, interval_step=0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (BARE, CHECKED),
        (f"{BARE}?", CHECKED),
        (f"{BARE}?ssl_cert_reqs=CERT_REQUIRED", CHECKED),
        (f"{BARE}?ssl_cert_reqs=none", f"{BARE}?ssl_cert_reqs=none"),
        (f"{BARE}?ssl_ca_certs=/a%20b", f"{BARE}?ssl_ca_certs=/a%20b&ssl_cert_reqs=required"),
        ("redis://h:1/0", "redis://h:1/0"),
    ],
)
def test_a_url_says_whether_the_certificate_is_checked(url: str, expected: str) -> None:
    """Celery refuses a URL without the option for it, and kombu would then check nothing."""
    assert (explicit(url), celery_url(url)) == (expected, expected)
