"""Which worker do the tests of commands on sagas share?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from multiagents.devserver.server import EmbeddedServer
from tests.support.command_line import cli
from tests.support.processes import Worker, wait_for


@pytest.fixture(scope="module")
def url(server: EmbeddedServer) -> Iterator[str]:
    """A server with one worker for all tests here."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    worker = Worker(server.url, "-Q", "io,llm", "-c", "2", imports="tests.support.cli_workers")
    with worker:
        worker.wait_ready()
        wait_for(lambda: cli("workers", "--json", url=server.url).out, what="the fleet")
        yield server.url


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """The file for which the workflow ``gated`` waits; it exists at the latest at the end."""
    path = tmp_path / "gate"
    yield path
    path.touch()
