"""How does one begin, with nothing installed but this package?

`multiagents dev`: an embedded server (or the one that MULTIAGENTS_REDIS_URL names), a worker with
the modules of MULTIAGENTS_IMPORTS, and a stub for the language model if none is set.  All of it
ends with the command.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from multiagents.cli.errors import OK, masked
from multiagents.cli.model import STUB, model_environment
from multiagents.cli.output import Json, emit, hint, say
from multiagents.cli.session import Session, connect, environment, load_code
from multiagents.cli.worker_process import WorkerProcess
from multiagents.core.exceptions import InvalidInput, NoServer
from multiagents.core.settings import Settings

Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65_535, help="The server's port; 0 takes a free one."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the server keeps its data (default: .multiagents)."),
]
Concurrency = Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Worker children.")]

USUAL_PORT = 6379
"""With it other commands find the server without MULTIAGENTS_REDIS_URL."""


@dataclass(frozen=True, slots=True)
class Place:
    """The server that `dev` works with."""

    url: str
    data_dir: Path | None
    """None: the server is not ours."""


def dev(
    port: Port = None,
    data_dir: DataDir = None,
    concurrency: Concurrency = 2,
    json_output: Json = False,
) -> None:
    """Run a server and a worker here, until Ctrl-C; nothing is left behind but the data.

    With --json one object is printed when they are ready; logs go to stderr.
    """
    settings = environment()
    _check_code(settings)
    with stopped_by_signals(), ExitStack() as stack:
        place = _server(stack, settings, port, data_dir)
        model = model_environment(stack, settings)
        worker = stack.enter_context(
            WorkerProcess(
                "dev",
                env={"MULTIAGENTS_REDIS_URL": place.url, **model},
                options=("-l", "INFO", "-c", str(concurrency)),
                queues=None,
            )
        )
        session = connect(settings.model_copy(update={"redis_url": place.url}))
        worker.wait_ready(session)
        if json_output:
            emit(_facts(session, place, worker, stub=bool(model)))
        else:
            _greet(session, place, settings, stub=bool(model))
            _warn(_others(session, worker))
        worker.process.wait()
        raise worker.ended()


def _check_code(settings: Settings) -> None:
    """Raise InvalidInput for modules and files that the worker could not read, before anything.

    A module that asks a server at its import is left to the worker, which has one.
    """
    with suppress(NoServer):
        load_code(settings)


def _server(stack: ExitStack, settings: Settings, port: int | None, data_dir: Path | None) -> Place:
    if "redis_url" in settings.model_fields_set and port is None and data_dir is None:
        return Place(settings.redis_url, None)
    from multiagents.storage.server import EmbeddedServer

    folder = data_dir or settings.data_dir
    if port is None:
        try:
            server = stack.enter_context(EmbeddedServer(folder, port=USUAL_PORT))
        except (InvalidInput, NoServer):  # the port is taken; any other trouble shows again below
            server = stack.enter_context(EmbeddedServer(folder))
    else:
        server = stack.enter_context(EmbeddedServer(folder, port=port))
    return Place(server.url, server.data_dir)


def _facts(session: Session, place: Place, worker: WorkerProcess, *, stub: bool) -> dict[str, Any]:
    return {
        "redis_url": masked(place.url),
        "data_dir": str(place.data_dir) if place.data_dir else None,
        "worker": worker.hostname,
        "worker_pid": worker.process.pid,
        "workflows": session.run(session.runtime.catalog.workflow_names()),
        "stub_model": stub,
        "others": [other.to_dict() for other in _others(session, worker)],
    }


def _greet(session: Session, place: Place, settings: Settings, *, stub: bool) -> None:
    known = session.run(session.runtime.catalog.workflow_names())
    where = f"data in {place.data_dir}" if place.data_dir else "from MULTIAGENTS_REDIS_URL"
    say("")
    say(f"server     {masked(place.url)}  ({where})")
    say(f"workflows  {', '.join(known) or 'none'}")
    if stub:
        say(f"model      {STUB}")
    if not settings.import_names and not known:
        hint("name the modules with your workers in MULTIAGENTS_IMPORTS, and start this again")
    prefix = "" if place.url == settings.redis_url else f"MULTIAGENTS_REDIS_URL={place.url} "
    name = known[0] if known else "WORKFLOW"
    say(f"start one  {prefix}multiagents start {name} --input '{{}}' --wait")
    say("stop       Ctrl-C")


@dataclass(frozen=True, slots=True)
class Other:
    """Another worker on the server, and which functions of shared queues the one or other lacks."""

    hostname: str
    lacks: tuple[str, ...]
    brings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


def _others(session: Session, worker: WorkerProcess) -> list[Other]:
    """Who works on this server beside our worker."""
    fleet = dict(session.fleet())
    ours = fleet.pop(worker.hostname, {"queues": [], "workers": {}})
    return [
        Other(hostname, lacks=_missing(ours, of=each), brings=_missing(each, of=ours))
        for hostname, each in sorted(fleet.items())
    ]


def _missing(one: Mapping[str, Any], *, of: Mapping[str, Any]) -> tuple[str, ...]:
    """Functions of the one that the other lacks, though it consumes their queue."""
    return tuple(
        sorted(
            name
            for name, queue in one["workers"].items()
            if queue in of["queues"] and name not in of["workers"]
        )
    )


def _warn(others: list[Other]) -> None:
    for other in others:
        text = f"another worker, {other.hostname}, is on this server, and takes steps of yours"
        if other.lacks:
            text += f"; it lacks {', '.join(other.lacks)}, and gives their steps back"
        if other.brings:
            text += f"; this one lacks {', '.join(other.brings)}"
        hint(text)


@contextmanager
def stopped_by_signals(code: int = OK) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal unwind the block, then exit with ``code``.

    The usual code says that each of them is a good end.
    """

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    chosen = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in chosen]
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(code) from None
    finally:
        for number, handler in zip(chosen, before, strict=True):
            signal.signal(number, handler)
