"""Which workers are running?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multiagents.cli.output import Json, console, emit_each, say
from multiagents.cli.session import Session, connect

if TYPE_CHECKING:
    from multiagents.cli.fleet_checks import Known
    from multiagents.orchestrator.workflow import Workflow


def workers(json_output: Json = False) -> None:
    """List running worker processes: host, queues, worker functions, last seen.

    LACKS names the functions of a queue that a worker of that queue does not have.
    """
    from multiagents.cli.fleet_checks import lacking_of
    from multiagents.orchestrator.blocked_loops import lately

    session = connect()
    known = known_of(session, published(session))
    lacking = lacking_of(known)
    if json_output:
        loops = lately(session.run(session.runtime.catalog.loops()), session.now_ms)
        fleet = sorted(known.fleet.items())
        emit_each(_row(host, each, lacking, loops.get(host)) for host, each in fleet)
    elif known.fleet:
        _print(known.fleet, lacking, session.now_ms)
    else:
        say(f"no worker is running; start one with: {known.start()}")


def _row(
    host: str,
    member: Mapping[str, Any],
    lacking: Mapping[str, Any],
    loop: Mapping[str, Any] | None,
) -> dict[str, Any]:
    from multiagents.orchestrator.describe import iso

    return {
        "hostname": host,
        "app": member.get("app"),
        "imports": member.get("imports", []),
        "queues": member["queues"],
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
            ago(member["at_ms"], now_ms),
            ", ".join(name for names in lacking.get(host, {}).values() for name in names),
            ", ".join(sorted(member["workers"])),
        )
        for host, member in sorted(fleet.items())
    ]
    console().print(Rows(("HOST", "QUEUES", "LAST SEEN", "LACKS", "WORKERS"), rows))


def known_of(session: Session, workflows: Sequence[Workflow] = ()) -> Known:
    """What workers publish."""
    from multiagents.cli.fleet_checks import Known
    from multiagents.orchestrator import launches

    imports = session.runtime.settings.import_names
    return Known(session.fleet(), workflows, session.run(launches.read()), imports)


def published(session: Session) -> list[Workflow]:
    """The workflows that workers have published."""
    catalog = session.runtime.catalog
    found = [session.run(catalog.workflow(name)) for name in session.run(catalog.workflow_names())]
    return [workflow for workflow in found if workflow is not None]
