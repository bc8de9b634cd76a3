"""Is everything as it should be?

Reads all that `checks` judges and prints the findings.  A server that cannot be reached is a
finding too; what needs no server is checked nevertheless.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from multiagents.cli.errors import CommandError, one_line
from multiagents.cli.output import Json, console, emit, table
from multiagents.cli.session import Session, environment, make_runtime, probe

if TYPE_CHECKING:
    from multiagents.bootstrap import Runtime
    from multiagents.cli.checks import Check
    from multiagents.orchestrator.workflow import Workflow

UNSETTLED = ("running", "paused", "compensating", "failed")
"""States in which sagas may wait for a person."""
LOOKED_AT = 100
"""Of each of those states, the newest."""


def doctor(json_output: Json = False) -> None:
    """Check the server, its settings, workers and sagas; say what to do about each finding.

    Exit code 1 if a check failed; warnings alone give 0.
    """
    found = examine()
    failed = any(check.status == "fail" for check in found)
    if json_output:
        emit({"ok": not failed, "checks": [check.to_dict() for check in found]})
    else:
        rows = [(check.status, check.name, _told(check)) for check in found]
        console().print(table(("", "CHECK", "FINDING"), rows))
    raise typer.Exit(int(failed))


def _told(check: Check) -> str:
    return f"{check.message}\n→ {check.fix}" if check.fix else check.message


def examine() -> list[Check]:
    """All findings, those about the server first."""
    from multiagents.cli.checks import Check

    try:
        runtime = make_runtime(environment())
    except CommandError as error:
        return [Check("server", "fail", one_line(error), "correct MULTIAGENTS_REDIS_URL")]
    try:
        probe(runtime)
    except CommandError as error:
        fix = "set MULTIAGENTS_REDIS_URL to a running server, or run `multiagents dev`"
        return [Check("server", "fail", one_line(error), fix), *_configuration(runtime, ())]
    workflows = _published(Session(runtime))
    return [
        *_server(Session(runtime), workflows),
        *_configuration(runtime, workflows),
    ]


def _server(session: Session, workflows: list[Workflow]) -> Iterable[Check]:
    from multiagents.cli import checks
    from multiagents.storage.health import read_due, read_server

    runtime = session.runtime
    health = session.run(read_server())
    now_ms = session.now_ms
    fleet = session.fleet()
    skew_ms = int(getattr(runtime.clock, "offset_ms", 0))
    yield checks.version(health)
    yield checks.append_only(health)
    yield checks.eviction(health)
    yield checks.memory(health)
    yield checks.clocks(skew_ms, fleet, now_ms)
    yield checks.heartbeats(session.run(runtime.catalog.late()))
    yield checks.workers(fleet)
    yield checks.queues(fleet, workflows)
    yield checks.worker_names(fleet, workflows)
    yield checks.due(session.run(read_due(runtime.settings.shards, now_ms)), now_ms)
    rows = _unsettled(session)
    waiting = [row["transaction_id"] for row in rows if row["needs_attention"]]
    yield checks.attention(waiting, looked_at=len(rows))


def _configuration(runtime: Runtime, workflows: Iterable[Workflow]) -> Iterable[Check]:
    from multiagents.cli import checks

    conf = runtime.app.conf
    yield checks.visibility(conf.broker_transport_options or {}, workflows)
    yield checks.result_backend(conf.result_backend)
    yield checks.serializers(conf.accept_content or ())


def _published(session: Session) -> list[Workflow]:
    catalog = session.runtime.catalog
    found = [session.run(catalog.workflow(name)) for name in session.run(catalog.workflow_names())]
    return [workflow for workflow in found if workflow is not None]


def _unsettled(session: Session) -> list[dict[str, Any]]:
    return [
        row for state in UNSETTLED for row in session.call("list", state=state, limit=LOOKED_AT)
    ]
