"""Do a worker, a client and an operator need no more rights than docs/how-to/operations.md says?

The rules of each user stand on the page, from which they are read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from multiagents.core.exceptions import SagaFailed
from multiagents.core.settings import Settings
from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import attach
from tests.support.command_line import cli
from tests.support.processes import ROOT, Worker, wait_for

PAGE = (ROOT / "docs" / "how-to" / "operations.md").read_text("utf-8")
RULES = {
    name: rules.split()
    for name, rules in re.findall(r"^    ACL SETUSER (\w+) on >PASSWORD (.+)$", PAGE, re.MULTILINE)
}
DEADLINE_S = 60


@dataclass
class Site:
    """A server with the page's users, and a worker that is one of them."""

    url: str
    admin: Any

    def of(self, user: str) -> str:
        return self.url.replace("redis://", f"redis://{user}:PASSWORD@")

    def denied(self) -> list[str]:
        """What the server has denied to anybody."""
        log = self.admin.execute_command("ACL", "LOG")
        entries = [_flat(entry) for entry in log]
        return [f"{e['username']}: {e['reason']} {e['object']} ({e['context']})" for e in entries]


def _flat(entry: Any) -> dict[str, str]:
    pairs = entry.items() if isinstance(entry, dict) else zip(entry[::2], entry[1::2], strict=True)
    return {_text(name): _text(value) for name, value in pairs}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("rights")
    with EmbeddedServer(folder) as server, redis.Redis.from_url(server.url) as admin:
        for name, rules in RULES.items():
            admin.execute_command("ACL", "SETUSER", name, "reset", "on", ">PASSWORD", *rules)
        found = Site(server.url, admin)
        imports = "tests.support.basic_workers"
        with Worker(found.of("worker"), "-c", "1", imports=imports) as worker:
            worker.wait_ready()
            yield found
            assert "ermission" not in worker.log


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[Any]:
    """A program that starts sagas and waits for them."""
    settings = Settings(redis_url=site.of("client"))
    runtime = attach(make_app(settings), settings)
    yield runtime
    runtime.edge.close()


def test_the_page_names_all_users() -> None:
    """Else nothing is tested here."""
    assert set(RULES) == {"worker", "client", "operator"}


@pytest.mark.processes
def test_a_saga_completes_and_its_starter_is_told(site: Site, client: Any) -> None:
    """Several steps, each of another kind, started without the code."""
    result = client.start_saga.delay("echoes", {"text": "x"})
    assert result.get(timeout=DEADLINE_S)["echo"] == "x"
    assert site.denied() == []


@pytest.mark.processes
def test_a_saga_that_fails_is_undone(site: Site, client: Any) -> None:
    """The caller receives the failure too."""
    with pytest.raises(SagaFailed) as failed:
        client.start_saga.delay("fails_at_two", {}).get(timeout=DEADLINE_S)
    assert failed.value.undo["one"]["state"] == "succeeded"
    assert site.denied() == []


@pytest.mark.processes
def test_an_operator_sees_and_steers(site: Site, client: Any) -> None:
    """The command line, and doctor finds every right in order."""
    done = cli("start", "echoes", "--input", '{"text": "y"}', url=site.of("operator"))
    saga_id = done.out.strip()
    assert done.code == 0, done.err
    wait_for(lambda: client.call("get", saga_id)["state"] == "completed", DEADLINE_S, "its end")
    for words in (("show", saga_id), ("list",), ("history", saga_id), ("explain", saga_id)):
        told = cli(*words, url=site.of("operator"))
        assert told.code == 0, told.err
    assert cli("rollback", saga_id, url=site.of("operator")).code == 0
    site.admin.hset("ma:{s00}:saga:half", "w", "x")
    assert cli("remove", "half", url=site.of("operator")).code == 0
    report = cli("doctor", "--json", url=site.of("operator")).json
    found = {check["name"]: check for check in report["checks"]}
    assert found["rights"]["status"] == "ok", found["rights"]["message"]
    assert [name for name, check in found.items() if check["status"] == "fail"] == []
