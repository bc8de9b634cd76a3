"""Which sagas need an operator?

One block for each reason: its kind and saga, the cause, and the next command on its own line.
On a terminal, sagas with the same cause share a block, with one command for all if possible.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import typer

from multiagents.cli.commands.explain import command_lines, paragraph_width, wrapped
from multiagents.cli.output import Json, emit_each, say
from multiagents.cli.session import connect

Limit = Annotated[int, typer.Option("--limit", min=1, help="The most to list, oldest first.")]
TITLES = {
    "step": "step {step} parked",
    "undo": "undo of {step} parked",
    "paused": "paused",
    "terminated": "terminated",
    "end": "callback refused",
    "note": "note",
    "damaged": "damaged",
}
"""By kind; an unknown kind is shown by its own name."""
SHORT_ERROR = 60
"""How many characters of an error a command names, if these are distinct."""
Row = Mapping[str, Any]
NOTHING = "nothing waits for an operator"
MORE = "The cause, and all possible actions for one saga:\n  multiagents explain ID"


def attention(limit: Limit = 100, json_output: Json = False) -> None:
    """List the sagas that need an operator, oldest first, with the cause and the next command.

    These are parked, paused, terminated and damaged sagas, and sagas with a note.
    With --json one line for each.
    """
    rows = connect().call("attention", limit=limit)
    if json_output:
        emit_each(rows)
    elif rows:
        say(laid_out(rows, width=paragraph_width(), whole=len(rows) < limit))
        if len(rows) == limit:
            say(f"\nAt most {limit} are shown; more with --limit.")
        say(f"\n{MORE}")
    else:
        say(NOTHING)


def laid_out(rows: Sequence[Row], *, width: int | None, whole: bool = True) -> str:
    """The blocks, in lines of at most ``width`` columns; None: of any length, one per row.

    ``whole``: no further rows were left out.
    """
    if width is None:
        return "\n\n".join(_block([row], rows, width, whole) for row in rows)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((*_place(row), _why(row)), []).append(row)
    return "\n\n".join(_block(group, rows, width, whole) for group in groups.values())


def _place(row: Row) -> tuple[Any, ...]:
    return row["kind"], row["workflow"], row["step"]


def _why(row: Row) -> str:
    """The common cause of a block: the error of a dead letter, whatever its number of attempts."""
    error = row.get("error")
    return f"{error['type']}: {error['message']}" if error else str(row["reason"])


def _block(rows: Sequence[Row], all_rows: Sequence[Row], width: int | None, whole: bool) -> str:
    """The block of rows with the same cause; its age is that of the oldest."""
    from multiagents.core.texts import shown_line
    from multiagents.operations.explain.saga import span

    row, ids = rows[0], [each["transaction_id"] for each in rows]
    kind = str(row["kind"])
    title = TITLES.get(kind, kind).format(step=row["step"])
    age = f" ({span(row['age_s'] * 1000)})" if row["age_s"] is not None else ""
    workflow = f"{row['workflow']} " if row["workflow"] else ""
    which = ids[0] if len(ids) == 1 else f"{len(ids)} sagas"
    same = len({each["reason"] for each in rows}) == 1
    head, reason = (
        wrapped(shown_line(each), width)
        for each in (
            f"{title}{age}: {workflow}{which}",
            row["reason"] if same else _why(row),
        )
    )
    commands = _commands(rows, all_rows, whole)
    words = " ".join(commands).split()
    listed = [f"  {shown_line(each)}" for each in ids if each not in words]
    lines = [command_lines(each, width) for each in commands]
    return "\n".join([head, *(listed if len(ids) > 1 else ()), reason, *lines])


def _commands(rows: Sequence[Row], all_rows: Sequence[Row], whole: bool) -> list[str]:
    """The likely command for all rows; with the placeholder ``ID`` if it takes only one saga."""
    row, ids = rows[0], [each["transaction_id"] for each in rows]
    command: str = row["commands"][0]
    if len(ids) == 1:
        return [command]
    if row["kind"] in ("step", "undo"):
        return _of_letters(rows, all_rows, whole)
    if row["kind"] == "paused":
        return [f"multiagents resume {' '.join(ids)}"]
    return [" ".join("ID" if word == ids[0] else word for word in command.split(" "))]


def _of_letters(rows: Sequence[Row], all_rows: Sequence[Row], whole: bool) -> list[str]:
    """One command for exactly these letters; one for each if no filter separates them."""
    row = rows[0]
    which = {"workflow": row["workflow"], "step": row["step"], "kind": row["kind"]}
    others = {_why(each) for each in all_rows if _place(each) == _place(row)} - {_why(row)}
    if others or not whole:
        text = _distinct(_why(row), others)
        if not text:
            return [each["commands"][0] for each in rows]
        which["error"] = text
    options = " ".join(f"--{name} {shlex.quote(value)}" for name, value in which.items())
    return [f"multiagents dead-letters retry --all {options}"]


def _distinct(error: str, others: Collection[str]) -> str:
    """A beginning of an error that none of the others contains; "" if there is none."""
    plain = re.split(r"[\x00-\x1f\x7f]", error, maxsplit=1)[0]
    for text in (_first_words(plain, SHORT_ERROR), plain):
        if not any(text.lower() in other.lower() for other in others):
            return text
    return ""


def _first_words(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most].rpartition(" ")[0] or text[:most]
