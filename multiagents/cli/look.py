"""How does one look at sagas from a shell?"""

from __future__ import annotations

from typing import Annotated

import typer

from multiagents.cli.output import Json, console, emit_each
from multiagents.cli.render import history_table, sagas_table
from multiagents.cli.session import Session, connect
from multiagents.cli.watch import SagaId, show_saga
from multiagents.core.states import SagaState

State = Annotated[SagaState | None, typer.Option("--state", help="Only sagas in this state.")]
OfWorkflow = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", help="Only sagas of this workflow.")
]
Tag = Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only sagas with this tag.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")]


def list_(
    state: State = None,
    workflow: OfWorkflow = None,
    tag: Tag = None,
    limit: Limit = 50,
    json_output: Json = False,
) -> None:
    """List sagas, newest first."""
    print_list(connect(), state=state, workflow=workflow, tag=tag, limit=limit, as_json=json_output)


def show(saga_id: SagaId, json_output: Json = False) -> None:
    """Show a saga: its state, steps, results and errors."""
    print_saga(connect(), saga_id, as_json=json_output)


def history(saga_id: SagaId, json_output: Json = False) -> None:
    """Show what happened to a saga, oldest first."""
    events = connect().call("history", saga_id)
    if json_output:
        emit_each(events)
    else:
        console().print(history_table(events))


def print_list(
    session: Session,
    *,
    state: str | None = None,
    workflow: str | None = None,
    tag: str | None = None,
    limit: int = 50,
    as_json: bool = False,
) -> None:
    """Print the sagas that fit."""
    rows = session.call("list", state=state, workflow=workflow, tag=tag, limit=limit)
    if as_json:
        emit_each(rows)
    elif rows:
        console().print(sagas_table(rows))
    else:
        console().print("no such sagas; start one with: multiagents start WORKFLOW --input JSON")


def print_saga(session: Session, saga_id: str, *, as_json: bool = False) -> None:
    """Print one saga."""
    show_saga(session, session.call("get", saga_id), as_json=as_json)
