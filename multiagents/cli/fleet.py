"""Which workers are running?"""

from __future__ import annotations

from multiagents.cli.output import Json, console, emit_each, say, table
from multiagents.cli.session import connect


def workers(json_output: Json = False) -> None:
    """List running worker processes: host, queues, the names of their workers, last seen."""
    from multiagents.orchestrator.describe import iso

    session = connect()
    fleet = sorted(session.fleet().items())
    if json_output:
        emit_each(
            {
                "hostname": hostname,
                "queues": member["queues"],
                "workers": member["workers"],
                "last_seen": iso(member["at_ms"]),
            }
            for hostname, member in fleet
        )
    elif fleet:
        rows = [
            (
                hostname,
                ", ".join(member["queues"]),
                ", ".join(sorted(member["workers"])),
                f"{max(0, session.now_ms - member['at_ms']) / 1000:.0f} s ago",
            )
            for hostname, member in fleet
        ]
        console().print(table(("HOST", "QUEUES", "WORKERS", "LAST SEEN"), rows))
    else:
        say("no worker is running; start one with: celery -A multiagents worker -Q llm,io")
