"""How are sagas listed and shown from a shell?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from multiagents.cli.commands.watch import SagaId, show_saga
from multiagents.cli.errors import CommandError
from multiagents.cli.output import Json, console, emit_each, hint, say
from multiagents.cli.render import history_table, sagas_table
from multiagents.cli.session import Session, connect
from multiagents.cli.times import clock, ms_of


class Listed(StrEnum):
    """The states by which sagas are listed."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DAMAGED = "damaged"


State = Annotated[
    Listed | None,
    typer.Option(
        "--state", metavar="STATE", help=f"Only sagas in this state: {', '.join(Listed)}."
    ),
]
OfWorkflow = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", help="Only sagas of this workflow.")
]
Tag = Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only sagas with this tag.")]
OfKey = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="Only the saga of this idempotency key."),
]
OfInput = Annotated[
    list[str] | None,
    typer.Option(
        *("--input", "-i"),
        metavar="NAME=VALUE",
        help="Only with this value in the input (customer.id=7 looks inside); repeatable.",
    ),
]
OfError = Annotated[
    str | None,
    typer.Option(
        "--error", metavar="TEXT", help="Only with this text in an error; case does not matter."
    ),
]
Shows = Annotated[
    list[str] | None,
    typer.Option(
        "--show",
        metavar="NAME",
        help="Add a column for this value of the input (customer.id looks inside); repeatable.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only started since: 30m, 2h, 7d, yesterday, ISO 8601."
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only started until this time.")
]
Full = Annotated[bool, typer.Option("--full", help="Do not shorten long values.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The most to list.")]
MOST_SHOWN = 50
"""The default of --limit."""
PROGRESS_S = 2.0
"""The time between two lines about the progress of a long search."""


def list_(
    state: State = None,
    workflow: OfWorkflow = None,
    tag: Tag = None,
    key: OfKey = None,
    of_input: OfInput = None,
    error: OfError = None,
    since: Since = None,
    until: Until = None,
    show: Shows = None,
    limit: Limit = MOST_SHOWN,
    json_output: Json = False,
) -> None:
    """List the sagas that fit every filter, newest first.

    --tag, --workflow, --state, --key and the times use indexes. --input, --error and
    --state damaged read the sagas, newest first.
    """
    named = {"--workflow": workflow, "--tag": tag, "--key": key, "--error": error}
    for option, given in named.items():
        check_not_empty(option, given)
    print_list(
        connect(),
        state=state and state.value,
        workflow=workflow,
        tag=tag,
        idempotency_key=key,
        input=read_pairs(of_input or ()),
        error=error,
        since=since,
        until=until,
        shows=show or (),
        limit=limit,
        as_json=json_output,
    )


def show(saga_id: SagaId, full: Full = False, json_output: Json = False) -> None:
    """Show a saga: its state, and for each step its result, error and next attempt.

    Long values are shortened; --full and --json show them whole.
    """
    print_saga(connect(), saga_id, full=full, as_json=json_output)


def history(saga_id: SagaId, json_output: Json = False) -> None:
    """Show the events of a saga, oldest first."""
    session = connect()
    events = session.call("history", saga_id)
    if json_output:
        emit_each(events)
        return
    if events:
        say(f"started at {clock(ms_of(events[0]['at']) or 0, session.now_ms)}\n")
    console().print(history_table(events))


def check_not_empty(option: str, given: object) -> None:
    """Raise CommandError for an empty filter, which would fit everything."""
    if isinstance(given, str) and not given.strip():
        raise CommandError(f"{option} is empty; leave it out, or say what to look for")


def print_list(
    session: Session,
    *,
    limit: int = MOST_SHOWN,
    shows: Sequence[str] = (),
    as_json: bool = False,
    **filters: Any,
) -> None:
    """Print the sagas that fit the filters of `Listing.list`, with the keys ``shows`` of inputs."""
    service = session.runtime.host.service
    wanted = service.wanted(**{"since": None, "until": None, **filters})
    rows = session.run(service.search(wanted, limit=limit, progress=_Progress()))
    if as_json:
        emit_each(rows)
    elif rows:
        error = filters.get("error") or ""
        console().print(sagas_table(rows, session.now_ms, shows=shows, error=error))
        if len(rows) == limit == MOST_SHOWN:
            hint(f"the newest {limit} are shown; more with --limit")
    elif any(filters.values()):
        say("no saga fits")
    else:
        say("no sagas; start one with: multiagents start WORKFLOW --input JSON")
    if not rows:
        hint_if_unknown(session, filters.get("workflow"))


def hint_if_unknown(session: Session, workflow: str | None) -> None:
    """Print a note if no workflow has the name of a filter that found nothing."""
    problem = workflow and session.run(session.runtime.host.service.unknown_name(workflow))
    if problem:
        hint(problem)


class _Progress:
    """Prints the progress of a long search on stderr."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, looked: int, found: int) -> None:
        if time.monotonic() - self._said >= PROGRESS_S:
            self._said = time.monotonic()
            hint(f"{looked} sagas read, {found} fit")


def read_pairs(words: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` by name.  Raises CommandError."""
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise CommandError(f"--input is {word!r}; expected NAME=VALUE, such as sku=A17")
        found[name] = value
    return found


def print_saga(
    session: Session, saga_id: str, *, full: bool = False, as_json: bool = False
) -> None:
    """Print one saga."""
    saga = session.call("get", saga_id)
    if not as_json:
        people = session.run(session.runtime.host.service.people(saga["transaction_id"]))
        saga = {**saga, "asked": people.asked, "settled": people.settled}
    show_saga(session, saga, full=full, as_json=as_json)
