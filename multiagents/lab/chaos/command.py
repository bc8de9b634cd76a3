"""How is `chaos` called from a shell?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiagents.cli.errors import INTERRUPTED, OK, SAGA_FAILED
from multiagents.cli.output import Json, console, emit, hint, say, table
from multiagents.cli.stop_signals import stopped_by_signals

if TYPE_CHECKING:
    from multiagents.lab.chaos.recovery import Recovery
    from multiagents.lab.chaos.report import ChaosReport

Seconds = Annotated[
    float, typer.Option("--seconds", min=1, help="How long orders come in and faults occur.")
]
Sagas = Annotated[
    int, typer.Option("--sagas", min=1, help="Number of orders, spread over that time.")
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Worker processes, alternately prefork and threads.")
]
Kills = Annotated[int, typer.Option("--kills", min=0, help="Number of SIGKILLs of workers.")]
Pauses = Annotated[
    int,
    typer.Option("--pauses", min=0, help="How often a worker is frozen for longer than its lease."),
]
ServerKills = Annotated[
    int,
    typer.Option(
        "--server-kills", min=0, help="Number of SIGKILLs of the server, which restarts each time."
    ),
]
Cuts = Annotated[
    int, typer.Option("--cuts", min=0, help="How often half of all connections are closed.")
]
Seed = Annotated[
    int, typer.Option("--seed", help="Chooses the orders, the faults' times and their targets.")
]
Lease = Annotated[
    float, typer.Option("--lease", min=0.5, max=3600, help="Lease of a step, in seconds.")
]
Settle = Annotated[
    float,
    typer.Option(
        "--settle", min=1, help="Seconds after the last fault until all sagas must be at rest."
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep", help="An empty folder that keeps the ledger, the logs and the server's data."
    ),
]
MOST_SHOWN = 20
"""How many violations the table shows; `--json` has all."""


def chaos(
    seconds: Seconds = 60.0,
    sagas: Sagas = 300,
    workers: Workers = 4,
    kills: Kills = 6,
    pauses: Pauses = 2,
    server_kills: ServerKills = 2,
    cuts: Cuts = 2,
    seed: Seed = 0,
    lease: Lease = 3.0,
    settle: Settle = 120.0,
    keep: Keep = None,
    json_output: Json = False,
) -> None:
    """Kill workers and the server of a small shop repeatedly; check that nothing is lost.

    Needs no server: the command starts its own, and stops it at the end.  Exit code 1 means that
    a check failed.
    """
    with stopped_by_signals(INTERRUPTED):
        from multiagents.lab.chaos.plan import ChaosPlan
        from multiagents.lab.chaos.run import run

        plan = ChaosPlan(
            seconds=seconds,
            sagas=sagas,
            workers=workers,
            kills=kills,
            pauses=pauses,
            server_kills=server_kills,
            cuts=cuts,
            seed=seed,
            lease_s=lease,
            settle_s=settle,
            keep=keep,
        )
        report = run(plan, hint)
        if json_output:
            emit(report.to_dict())
        else:
            _show(report)
    raise typer.Exit(OK if report.ok else SAGA_FAILED)


def _show(report: ChaosReport) -> None:
    out = console()
    out.print(_faults(report))
    say("")
    out.print(table(("SAGAS", "COUNT"), [("started", report.started), *report.states.items()]))
    say("")
    out.print(_absorbed(report))
    say(f"\nattempts lost without a fault of their worker: {report.unexplained_losses}")
    say(f"sagas undone because of faults alone: {report.undone_by_faults}")
    say(f"repeated starts: {report.repeated_starts}")
    say(f"violations: {len(report.violations)}")
    if not report.ok:
        rows = [(one.what, one.saga, one.detail) for one in report.violations[:MOST_SHOWN]]
        out.print(table(("VIOLATION", "SAGA", "DETAIL"), rows))


def _faults(report: ChaosReport) -> Any:
    counts = {kind.value: count for kind, count in report.done.items()}
    asked = {kind.value: count for kind, count in report.plan.asked.items()}
    rows = [
        (name, counts.get(name), asked.get(name), one.count, *_times(one))
        for name, one in report.recovery.items()
    ]
    return table(("FAULT", "DONE", "ASKED", "HIT", "MEDIAN", "P99", "MAX"), rows)


def _times(one: Recovery) -> tuple[str | None, ...]:
    each = (one.median_s, one.p99_s, one.max_s)
    return tuple(None if value is None else f"{value:.2f} s" for value in each)


def _absorbed(report: ChaosReport) -> Any:
    rows = [(word, *counts.values()) for word, counts in report.absorbed.items()]
    return table(("ABSORBED BY KEYS", "BY ORDERS", "BY FAULTS"), rows)
