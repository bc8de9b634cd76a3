"""How do answers reach a person or a program?

`emit` writes a JSON line; everything else is for people, by rich, which is imported only then.
User data is never read as markup, and its control characters are shown as text: all that is printed
for people passes `say`, `hint` or `console`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiagents.cli.called import as_called, copied
from multiagents.core.texts import shown

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
    print(json.dumps(copied(value)), flush=True)


def emit_each(values: Iterable[Any]) -> None:
    """Print each value as a line of JSON."""
    for value in values:
        emit(value)


def say(text: str) -> None:
    """Print a line for people."""
    print(shown(as_called(text)), flush=True)


def hint(text: str, *, end: str = "\n") -> None:
    """Print a line that is no answer, on stderr."""
    print(shown(as_called(text)), end=end, file=sys.stderr, flush=True)


def console() -> Console:
    """Where people read, as wide as their terminal."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    made: Console = _console_class()(width=width, highlight=False, markup=False, emoji=False)
    return made


@cache
def _console_class() -> Any:
    from rich.console import Console

    class EscapingConsole(Console):
        """Whatever is rendered, only rich's own control codes reach the terminal."""

        def print(self, *objects: Any, **options: Any) -> None:
            named = (as_called(each) if isinstance(each, str) else each for each in objects)
            super().print(*named, **options)

        def render(self, *args: Any, **options: Any) -> Iterable[Any]:
            for segment in super().render(*args, **options):
                safe = segment.control or shown(segment.text) == segment.text
                yield segment if safe else segment._replace(text=shown(segment.text))

    return EscapingConsole


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
        return Text(shown(as_called(value)), style=COLOURS.get(value, ""))
    return Text(str(value)) if isinstance(value, int | float) else value
