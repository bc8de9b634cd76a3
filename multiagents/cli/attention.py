"""What waits for a person, in all sagas?

A block for each: what it is and of which saga, why, and the next command on a line of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from multiagents.cli.explain import command_lines, paragraph_width, wrapped
from multiagents.cli.output import Json, emit_each, say
from multiagents.cli.session import connect

Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many, oldest first.")]
TITLES = {
    "step": "step {step} parked",
    "undo": "undo of {step} parked",
    "paused": "paused",
    "terminated": "terminated",
    "end": "end not told",
    "note": "something to know",
    "damaged": "damaged",
}
"""By kind; one that is not here is shown by its own name."""
NOTHING = "nothing waits for a person"
MORE = "Why, and all that can be done about one:\n  multiagents explain ID"


def attention(limit: Limit = 100, json_output: Json = False) -> None:
    """List all that waits for a person, oldest first: why, and the next command.

    Parked, paused, terminated and damaged sagas, and what else is to be known.
    With --json a line for each.
    """
    rows = connect().call("attention", limit=limit)
    if json_output:
        emit_each(rows)
    elif rows:
        say(laid_out(rows, width=paragraph_width()))
        if len(rows) == limit:
            say(f"\nAt most {limit} are shown; more with --limit.")
        say(f"\n{MORE}")
    else:
        say(NOTHING)


def laid_out(rows: Sequence[Mapping[str, Any]], *, width: int | None) -> str:
    """The blocks, in lines of so many columns; None: of any length."""
    return "\n\n".join(_block(row, width) for row in rows)


def _block(row: Mapping[str, Any], width: int | None) -> str:
    from multiagents.core.texts import shown_line
    from multiagents.orchestrator.explanation import span

    title = TITLES.get(row["kind"], row["kind"]).format(step=row["step"])
    age = f" ({span(row['age_s'] * 1000)})" if row["age_s"] is not None else ""
    workflow = f"{row['workflow']} " if row["workflow"] else ""
    head = f"{title}{age}: {workflow}{row['transaction_id']}"
    lines = [wrapped(shown_line(each), width) for each in (head, row["reason"])]
    return "\n".join([*lines, command_lines(row["commands"][0], width)])
