"""How are answers printed as text and as JSON?

`emit` writes a line of JSON.  `say`, `hint` and `console` print text; rich is imported only for
tables.  User data is never parsed as markup, and its control characters are escaped.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiagents.cli.invocation import as_called, copied
from multiagents.core.texts import at_words, columns_of, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON: one object, or one object per line.")
]

PIPED_WIDTH = 100_000
"""The width without a terminal: each row is then one line of any length."""

NOTHING = "-"
"""Shown for a missing value."""
COLOURS = {
    "completed": "green",
    "succeeded": "green",
    "started": "cyan",
    "running": "cyan",
    "dispatched": "cyan",
    "compensating": "yellow",
    "compensated": "yellow",
    "retrying": "yellow",
    "retries": "yellow",
    "undo started": "yellow",
    "undo retries": "yellow",
    "undone": "yellow",
    "paused": "magenta",
    "failed": "red",
    "lost": "red",
    "no worker": "red",
    "damaged": "red",
    "undo failed": "red",
    "undo lost": "red",
    "parked": "red bold",
    "cancelled": "magenta",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}
"""By the words that users see: states, what happened, and the results of the doctor's checks."""


def emit(value: Any) -> None:
    """Print a value as one line of JSON, at once."""
    print(json.dumps(copied(value)), flush=True)


def emit_each(values: Iterable[Any]) -> None:
    """Print each value as a line of JSON."""
    for value in values:
        emit(value)


def say(text: str) -> None:
    """Print a line of text."""
    print(shown(as_called(text)), flush=True)


def hint(text: str, *, end: str = "\n") -> None:
    """Print a note on stderr; on a terminal it is wrapped between words."""
    line = at_words(shown(as_called(text)), columns_of(sys.stderr))
    print(line, end=end, file=sys.stderr, flush=True)


def console() -> Console:
    """The console for tables, as wide as the terminal."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    made: Console = _console_class()(
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        color_system="auto" if wants_colours() else None,
    )
    return made


def wants_colours() -> bool:
    """Whether a terminal gets codes for colours, bold and dim; NO_COLOR switches them off."""
    return not os.environ.get("NO_COLOR")


@cache
def _console_class() -> Any:
    from rich.console import Console

    class EscapingConsole(Console):
        """Lets only rich's own control codes reach the terminal."""

        def print(self, *objects: Any, **options: Any) -> None:
            named = (as_called(each) if isinstance(each, str) else each for each in objects)
            super().print(*named, **options)

        def render(self, *args: Any, **options: Any) -> Iterable[Any]:
            for segment in super().render(*args, **options):
                safe = segment.control or shown(segment.text) == segment.text
                yield segment if safe else segment._replace(text=shown(segment.text))

    return EscapingConsole


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]] = ()) -> Table:
    """A plain table; a state among the cells gets its colour, None is shown as ``-``.

    Long cells are wrapped, never cut.  `multiagents.cli.rows` prints rows that begin with an id.
    """
    made: Table = _table_class()(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    return made


@cache
def _table_class() -> Any:
    from rich.segment import Segment
    from rich.table import Table

    class BareTable(Table):
        """Without trailing blanks, which would wrap in a narrower window."""

        def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
            rendered: Any = super().__rich_console__(console, options)
            for line in Segment.split_lines(rendered):
                yield from _without_end(line)
                yield Segment.line()

    return BareTable


def _without_end(line: list[Any]) -> list[Any]:
    while line and not line[-1].control and not line[-1].text.strip(" "):
        line.pop()
    return line if not line else [*line[:-1], line[-1]._replace(text=line[-1].text.rstrip(" "))]


def cell(value: Any) -> Any:
    """The cell for a value; rich's own objects stay as they are."""
    from rich.text import Text

    if value is None or value == "":
        return Text(NOTHING, style="dim")
    if isinstance(value, str):
        return Text(shown(as_called(value)), style=colour(value))
    return Text(str(value)) if isinstance(value, int | float) else value


def colour(word: str) -> str:
    """The style of a word, or of the last word in ``failed, parked``; "" if it has none."""
    return COLOURS.get(word) or COLOURS.get(word.rpartition(", ")[2], "")
