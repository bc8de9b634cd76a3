"""How is `bench` called from a shell?"""

from __future__ import annotations

from typing import Annotated

import typer

from multiagents.cli.output import Json, console, emit, hint, table

Steps = Annotated[
    int, typer.Option("--steps", min=1, max=1000, help="Steps of a chain and a saga.")
]
Sagas = Annotated[int, typer.Option("--sagas", min=1, help="How many of each in a round.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Pairs of measurements.")]
Concurrency = Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Worker children.")]
Fsync = Annotated[
    str, typer.Option("--appendfsync", metavar="always|everysec|no", help="The server's setting.")
]
Events = Annotated[bool, typer.Option("--events", help="With Celery's task events on.")]

Grow = Annotated[
    bool, typer.Option("--growth", help="Instead: cost of a step in small and large sagas.")
]


def bench(
    steps: Steps = 10,
    sagas: Sagas = 40,
    rounds: Rounds = 5,
    concurrency: Concurrency = 2,
    appendfsync: Fsync = "everysec",
    events: Events = False,
    growth: Grow = False,
    json_output: Json = False,
) -> None:
    """Measure sagas against bare Celery chains, on a server and workers of their own."""
    from multiagents.cli import bench as benches

    if growth:
        _growth(rounds, concurrency, json_output)
        return
    report = benches.run(
        steps=steps,
        sagas=sagas,
        rounds=rounds,
        concurrency=concurrency,
        appendfsync=appendfsync,
        events=events,
        progress=hint,
    )
    facts = report.to_dict()
    if json_output:
        emit(facts)
    else:
        rows = [(k, f"{v:.4g}" if isinstance(v, float) else str(v)) for k, v in facts.items()]
        console().print(table(("MEASURE", "VALUE"), rows))


def _growth(rounds: int, concurrency: int, json_output: bool) -> None:
    from multiagents.cli import bench as benches

    found = benches.growth(rounds=rounds, concurrency=concurrency, progress=hint)
    if json_output:
        for one in found:
            emit(one.to_dict())
        return
    rows = [
        (one.shape, f"{one.small_ms:.3f}", f"{one.large_ms:.3f}", f"{one.ratio:.2f}")
        for one in found
    ]
    heads = ("SHAPE", "SMALL MS/STEP", "LARGE MS/STEP", "RATIO")
    console().print(table(heads, rows))
