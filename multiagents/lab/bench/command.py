"""How is `bench` called from a shell?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiagents.cli.errors import INTERRUPTED
from multiagents.cli.output import Json, console, emit, hint, table
from multiagents.cli.stop_signals import stopped_by_signals

if TYPE_CHECKING:
    from multiagents.lab.bench.measurement import Measurement

Only = Annotated[
    str | None, typer.Option("--only", metavar="NAME,...", help="Run only these measurements.")
]
Everything = Annotated[
    bool, typer.Option("--all", help="Also run the measurements that take minutes.")
]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Number of rounds.")]
Concurrency = Annotated[
    int, typer.Option("--concurrency", "-c", min=1, help="Children of each worker.")
]
Fsync = Annotated[
    str,
    typer.Option(
        "--appendfsync", metavar="always|everysec|no", help="The server's durability setting."
    ),
]
Events = Annotated[
    bool, typer.Option("--events", help="Switch Celery's task events on for both sides (-E).")
]
Scale = Annotated[
    float, typer.Option("--scale", min=0.001, help="Factor for the amount of work in a round.")
]
Waiting = Annotated[
    int,
    typer.Option("--waiting", min=1, help="Number of sagas that wait for a timer in `waiting`."),
]
Minutes = Annotated[
    float,
    typer.Option(
        "--minutes", min=0.01, help="Minutes for which `leases` keeps all processors busy."
    ),
]
HEADS = ("NAME", "WHAT", "SAGA", "CELERY", "RATIO (MIN TO MAX)", "ERRORS")


def bench(
    only: Only = None,
    everything: Everything = False,
    rounds: Rounds = 5,
    concurrency: Concurrency = 2,
    appendfsync: Fsync = "everysec",
    events: Events = False,
    scale: Scale = 1.0,
    waiting: Waiting = 20_000,
    minutes: Minutes = 10,
    json_output: Json = False,
) -> None:
    """Compare sagas with bare Celery canvases, on a server and workers that the command starts.

    The measurements are chain10, plain10, chain100, fan10, wide1000, latency, cpu, growth, start
    and memory. Three more, waiting, leases and recovery, take minutes: name them, or use --all.
    """
    with stopped_by_signals(INTERRUPTED):
        from multiagents.lab.bench import catalog
        from multiagents.lab.bench.arena import machine
        from multiagents.lab.bench.measurement import MeasurementPlan

        entries = catalog.chosen(only, everything=everything)
        plan = MeasurementPlan(rounds, scale, concurrency, appendfsync, events, waiting, minutes)
        hint(f"{machine()}; appendfsync {appendfsync}, task events {'on' if events else 'off'}")
        found = []
        try:
            for one in catalog.run(entries, plan, hint):
                found.append(one)
                if json_output:
                    emit(one.to_dict(plan))
        finally:  # a stopped bench still prints the figures that it has
            if found and not json_output:
                console().print(table(HEADS, map(_row, found)))


def _row(one: Measurement) -> tuple[Any, ...]:
    return (
        one.name,
        one.what,
        _figure(one.saga, one.unit),
        _figure(one.celery, one.unit) if one.base is None else f"(sagas: {_number(one.base)})",
        _ratio(one),
        _errors(one),
    )


def _figure(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(one: Measurement) -> str | None:
    if one.ratio is None:
        return None
    return f"{one.ratio:.2f} ({one.ratio_min:.2f} to {one.ratio_max:.2f})"


def _errors(one: Measurement) -> str | None:
    found = [f"{side} {count}" for side, count in one.errors.items() if count]
    return ", ".join(found) or None
