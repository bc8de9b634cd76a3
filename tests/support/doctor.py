"""What would a worker publish, and what does `doctor` find then?"""

from __future__ import annotations

from multiagents.core.clock import SystemClock
from multiagents.core.ports import WorkerInfo
from multiagents.engine.catalog import Catalog
from multiagents.storage.client import Edge
from multiagents.workflows.builder import WorkflowBuilder
from tests.support.command_line import cli

NOW = 1_700_000_000_000


def publish(url: str, *, queues: tuple[str, ...] = ("io",), worker_queue: str = "io") -> None:
    """Publish what a running worker would."""
    catalog = Catalog(SystemClock())
    catalog.add_local(WorkerInfo("charge", worker_queue))
    workflow = WorkflowBuilder("order").add_step("charge", "charge").build()
    edge = Edge(url)
    edge.run(catalog.publish("w@host", queues, [workflow]))
    edge.close()


def statuses(url: str, *words: str, **env: str) -> dict[str, str]:
    done = cli("doctor", "--json", *words, url=url, **env)
    report = done.json
    assert done.code == (0 if report["ok"] else 1), done.err
    assert all(check["fix"] for check in report["checks"] if check["status"] != "ok")
    return {check["name"]: check["status"] for check in report["checks"]}
