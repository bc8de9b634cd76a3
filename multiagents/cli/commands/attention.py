"""What waits for a person, in all sagas?

A block for each: what it is and of which saga, why, and the next command on a line of its own.
On a terminal those that are alike share a block, with one command for all where there is one.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from multiagents.cli.commands.explain import command_lines, paragraph_width, wrapped
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
ALIKE = ("kind", "workflow", "step", "reason")
"""What is the same of those that share a block."""
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
    """The blocks, in lines of so many columns; None: of any length, and one for each."""
    if width is None:
        return "\n\n".join(_block([row], width) for row in rows)
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in ALIKE), []).append(row)
    return "\n\n".join(_block(group, width) for group in groups.values())


def _block(rows: Sequence[Mapping[str, Any]], width: int | None) -> str:
    """Of one, or of several that are alike; its age is that of the oldest."""
    from multiagents.core.texts import shown_line
    from multiagents.operations.explain.saga import span

    row, ids = rows[0], [each["transaction_id"] for each in rows]
    title = TITLES.get(row["kind"], row["kind"]).format(step=row["step"])
    age = f" ({span(row['age_s'] * 1000)})" if row["age_s"] is not None else ""
    workflow = f"{row['workflow']} " if row["workflow"] else ""
    which = ids[0] if len(ids) == 1 else f"{len(ids)} sagas"
    head, reason = (
        wrapped(shown_line(each), width)
        for each in (f"{title}{age}: {workflow}{which}", row["reason"])
    )
    command = _command(row, ids)
    listed = [f"  {shown_line(each)}" for each in ids if each not in command.split()]
    return "\n".join(
        [head, *(listed if len(ids) > 1 else ()), reason, command_lines(command, width)]
    )


def _command(row: Mapping[str, Any], ids: Sequence[str]) -> str:
    """The likely one, of several for all of them; where it takes one alone, for ``ID``."""
    command: str = row["commands"][0]
    if len(ids) == 1:
        return command
    if row["kind"] in ("step", "undo"):
        which = {"workflow": row["workflow"], "step": row["step"], "kind": row["kind"]}
        options = " ".join(f"--{name} {shlex.quote(value)}" for name, value in which.items())
        return f"multiagents dead-letters retry --all {options}"
    if row["kind"] == "paused":
        return f"multiagents resume {' '.join(ids)}"
    return " ".join("ID" if word == ids[0] else word for word in command.split(" "))
