"""Does a busy worker outlive a restart of its broker, on pools on which Celery's own does not?

`test_kill_server` shows it of the package's own app under prefork.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from multiagents.core.server_urls import celery_url
from multiagents.devserver.server import EmbeddedServer
from tests.support.celery_rig import (
    CONNECTED,
    DEADLINE_S,
    CeleryRig,
    assert_completed_once,
    busy_worker,
    fill,
)
from tests.support.processes import wait_for
from tests.support.socket_server import SocketServer

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("app", "pool", "kind"),
    [
        ("own", "threads", SocketServer),
        pytest.param("team", "prefork", EmbeddedServer, marks=pytest.mark.each_server),
        ("team", "threads", SocketServer),
    ],
)
def test_a_busy_worker_outlives_a_restart_of_its_broker(
    tmp_path: Path, app: str, pool: str, kind: type[EmbeddedServer]
) -> None:
    """Both slots are at work and messages are held; nothing ends, is lost or is done twice.

    By TCP, and by a unix socket, for which kombu would take a transport of its own.
    """
    with kind(tmp_path / "server", appendfsync="always") as server:
        by_socket = isinstance(server, SocketServer)
        rig = CeleryRig(celery_url(server.socket_url) if by_socket else server.url, 0, tmp_path)
        with busy_worker(rig, app, pool) as worker:
            worker.wait_ready()
            every = fill(rig, worker, app)
            server.kill()
            wait_for(lambda: "Connection to broker lost" in worker.log, DEADLINE_S, "the loss")
            server.restart()
            wait_for(lambda: worker.log.count(CONNECTED) > 1, DEADLINE_S, "the connection")
            rig.open("up")
            assert_completed_once(rig, worker, every)
        rig.close()
