"""Which workers are running?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multiagents.cli.output import Json, console, emit_each, say
from multiagents.cli.session import Session, connect

if TYPE_CHECKING:
    from multiagents.cli.doctor.workers import Known
    from multiagents.workflows.workflow import Workflow


def workers(json_output: Json = False) -> None:
    """List running workers, with their queues and functions, and when each was last seen.

    STATE marks a worker that is stopping, and counts the tasks that it still runs. LACKS names
    functions of its queues that other workers have and this one has not.
    """
    from multiagents.cli.doctor.workers import lacking_of
    from multiagents.operations.explain.blocked_loops import lately

    session = connect()
    known = known_of(session, published(session))
    lacking = lacking_of(known)
    if json_output:
        loops = lately(session.run(session.runtime.catalog.loops()), session.now_ms)
        fleet = sorted({**known.fleet, **known.stopping}.items())
        emit_each(_row(host, each, lacking, loops.get(host)) for host, each in fleet)
        return
    if known.fleet or known.stopping:
        _print({**known.fleet, **known.stopping}, lacking, session.now_ms)
    if not known.fleet:
        why = "no worker claims work" if known.stopping else "no worker is running"
        say(f"{why}; start one with: {known.start()}")


def _row(
    host: str,
    member: Mapping[str, Any],
    lacking: Mapping[str, Any],
    loop: Mapping[str, Any] | None,
) -> dict[str, Any]:
    from multiagents.core.clock import iso

    return {
        "worker": host,
        "hostname": host,
        "state": member.get("state", "running"),
        "at_work": member.get("at_work"),
        "app": member.get("app"),
        "imports": member.get("imports", []),
        "queues": member["queues"],
        "functions": member["workers"],
        "workers": member["workers"],
        "lacks": lacking.get(host, {}),
        "blocked_loop": loop
        and {
            **{name: loop[name] for name in ("blocked", "lag_ms", "by", "place")},
            "at": iso(loop["at_ms"]),
        },
        "last_seen": iso(member["at_ms"]),
    }


def _print(fleet: Mapping[str, Any], lacking: Mapping[str, Any], now_ms: int) -> None:
    from multiagents.cli.rows import Rows
    from multiagents.cli.times import ago

    rows = [
        (
            host,
            ", ".join(member["queues"]),
            _state(member),
            ago(member["at_ms"], now_ms),
            ", ".join(name for names in lacking.get(host, {}).values() for name in names),
            ", ".join(sorted(member["workers"])),
        )
        for host, member in sorted(fleet.items())
    ]
    heads = ("WORKER", "QUEUES", "STATE", "LAST SEEN", "LACKS", "FUNCTIONS")
    console().print(Rows(heads, rows))


def _state(member: Mapping[str, Any]) -> str:
    """The state of a stopping worker; "" for a running one."""
    from multiagents.cli.doctor.checks import count_of

    count = member.get("at_work")
    return "" if count is None else f"stopping, still at {count_of(count, 'task')}"


def known_of(session: Session, workflows: Sequence[Workflow] = ()) -> Known:
    """What the workers publish about themselves."""
    from multiagents.cli.doctor.workers import Known
    from multiagents.engine import launches
    from multiagents.engine.catalog import split

    imports = session.runtime.settings.import_names
    running, stopping = split(session.fleet())
    route_of = session.runtime.catalog.route_of
    return Known(running, workflows, session.run(launches.read()), imports, stopping, route_of)


def published(session: Session) -> list[Workflow]:
    """The workflows that workers have published."""
    catalog = session.runtime.catalog
    found = [session.run(catalog.workflow(name)) for name in session.run(catalog.workflow_names())]
    return [workflow for workflow in found if workflow is not None]
