"""What happens while workers with new code run beside workers with old code?

Two real workers have one module in two versions (`tests.support.release`) on one server.  The
client has no code: it knows the workflows that the workers publish.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from multiagents.core.settings import Settings
from multiagents.core.states import ENDED
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime, attach
from tests.support.processes import Worker, wait_for

pytestmark = pytest.mark.processes

LEASE_S = 1.0
OLD_STEPS, NEW_STEPS = ["reserve", "price", "label"], ["reserve", "price", "insure"]


@dataclass
class Site:
    """A server, a client, and the workers of each version."""

    url: str
    folder: Path
    app: Celery
    runtime: Runtime
    stack: ExitStack

    def worker(self, release: str) -> Worker:
        """A worker of that version, ready."""
        env = {
            "RELEASE": release,
            "GATES": str(self.folder),
            "MULTIAGENTS_LEASE_S": str(LEASE_S),
            "MULTIAGENTS_SWEEP_S": "0.2",
        }
        made = Worker(self.url, "-c", "2", imports="tests.support.release", env=env)
        return self.stack.enter_context(made).wait_ready()

    def start(self, gate: str = "") -> str:
        return str(self.runtime.call("start", "rel_order", {"gate": gate}))

    def get(self, saga_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.runtime.call("get", saga_id)
        return found

    def ended(self, saga_id: str) -> dict[str, Any]:
        wait_for(lambda: self.get(saga_id)["state"] in ENDED, 30, f"end of {saga_id}")
        return self.get(saga_id)

    def at_work(self, saga_id: str, step: str) -> None:
        """Wait until a step has begun."""
        path = self.folder / "ran"
        wait_for(lambda: path.exists() and f"{saga_id} {step} " in path.read_text(), 10, step)

    def published(self) -> list[str]:
        """The steps that the workflow's name means now."""
        found = self.runtime.edge.run(self.runtime.catalog.workflow("rel_order"))
        return list(found.by_name) if found else []


@pytest.fixture
def site(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    settings = Settings(redis_url=redis_url, lease_s=LEASE_S)
    app = make_app(settings)
    runtime = attach(app, settings)
    with ExitStack() as stack:
        yield Site(redis_url, tmp_path, app, runtime, stack)
    runtime.edge.close()
    app.close()


def test_old_and_new_workers_stand_side_by_side(site: Site) -> None:
    """Running sagas keep their definition, new ones get the new one, and no step gets lost.

    If only one version has a step's function, that version runs it, however often the other gets
    its message.
    """
    old = site.worker("old")
    wait_for(lambda: site.published() == OLD_STEPS, 15, "the old definition")
    under_way = [site.start("open") for _ in range(2)]
    for saga_id in under_way:
        site.at_work(saga_id, "reserve")
    site.worker("new")
    wait_for(lambda: site.published() == NEW_STEPS, 15, "the new definition")
    begun = [site.start() for _ in range(4)]
    (site.folder / "open").touch()
    for saga_id in begun:
        saga = site.ended(saga_id)
        assert (saga["state"], list(saga["steps"])) == ("completed", NEW_STEPS)
        assert saga["step_results"]["insure"] == {"insure": "new"}
    for saga_id in under_way:
        saga = site.ended(saga_id)
        assert (saga["state"], list(saga["steps"])) == ("completed", OLD_STEPS)
        assert saga["step_results"]["label"] == {"label": "old"}
        assert saga["steps"]["label"]["attempts"] == 1
    assert old.process.poll() is None
    versions = {site.get(saga_id)["version"] for saga_id in (*under_way, *begun)}
    assert len(versions) == 2


def test_a_step_that_no_version_left_can_do_is_parked_and_said(site: Site) -> None:
    """The old workers stopped too early, so the saga waits for an operator.

    A changed function of the same name runs older sagas' steps: definitions are pinned, functions
    are not.
    """
    old = site.worker("old")
    wait_for(lambda: site.published() == OLD_STEPS, 15, "the old definition")
    saga_id = site.start("open")
    site.at_work(saga_id, "reserve")
    site.worker("new")
    old.kill()
    site.runtime.leave(old.name)  # as its silence would after half a minute
    (site.folder / "open").touch()
    wait_for(lambda: site.get(saga_id)["needs_attention"], 30, "the dead letter")
    saga = site.get(saga_id)
    assert saga["state"] == "running"
    assert saga["steps"]["label"]["state"] == "parked"
    assert "'rel_label': deploy it" in saga["steps"]["label"]["error"]["message"]
    assert saga["step_results"]["price"] == {"price": 2}
