"""How do answers reach a person or a program?

`emit` writes a JSON line; everything else is for people, by rich, which is imported only then.
User data is never read as markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one a line.")]

PIPED_WIDTH = 200
"""Columns where there is no terminal: ids must not be wrapped there."""

COLOURS = {
    "completed": "green",
    "succeeded": "green",
    "running": "cyan",
    "dispatched": "cyan",
    "compensating": "yellow",
    "compensated": "yellow",
    "retrying": "yellow",
    "paused": "magenta",
    "failed": "red",
    "parked": "red bold",
    "cancelled": "magenta",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}
"""By the words that users see: states, and the results of the doctor's checks."""


def emit(value: Any) -> None:
    """Print a value as one line of JSON, at once."""
    print(json.dumps(value), flush=True)


def emit_each(values: Iterable[Any]) -> None:
    """Print each value as a line of JSON."""
    for value in values:
        emit(value)


def say(text: str) -> None:
    """Print a line for people."""
    print(text, flush=True)


def hint(text: str) -> None:
    """Print a line that is no answer, on stderr."""
    print(text, file=sys.stderr, flush=True)


def console() -> Console:
    """Where people read, as wide as their terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]] = ()) -> Table:
    """A plain table; a state among the cells gets its colour, None is shown as ``-``."""
    from rich.table import Table

    made = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*map(cell, row))
    return made


def cell(value: Any) -> Any:
    """What stands in a table for a value; rich's own objects stay as they are."""
    from rich.text import Text

    if value is None or value == "":
        return Text("-", style="dim")
    if isinstance(value, str):
        return Text(value, style=COLOURS.get(value, ""))
    return Text(str(value)) if isinstance(value, int | float) else value
