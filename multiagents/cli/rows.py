"""How do rows that begin with an id fit a narrow terminal?

The first column is never cut, because users copy its ids.  Columns that are empty in all rows are
left out.  Columns that do not fit beside the first one are printed below it, each with its name.
A last column of text is wrapped in place if there is room for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from multiagents.cli.output import NOTHING, cell

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

GAP = 2
"""Blanks between two columns, and before the lines below a row."""
LEAST_TEXT = 24
"""The least width of a text column; a narrower one is printed below."""


class Rows:
    """A table of rows; ``below``: the lines under each row."""

    def __init__(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        below: Sequence[Sequence[Text]] = (),
        *,
        keeps: int = 1,
    ) -> None:
        """``keeps``: how many of the first columns stay even if they are empty in all rows."""
        given = [tuple(row) for row in rows]
        kept = [place for place in range(len(columns)) if place < keeps or _is_used(given, place)]
        self.columns = [columns[place] for place in kept]
        self.rows = [[row[place] for place in kept] for row in given]
        self.below = below or [()] * len(given)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        rows = [[cell(_on_one_line(value)) for value in row] for row in self.rows]
        heads = [Text(name, style="bold") for name in self.columns]
        widths = [
            max(text.cell_len for text in column) for column in zip(heads, *rows, strict=True)
        ]
        room = options.max_width
        beside, wraps = _layout(widths, room)
        yield from _line(console, heads[:beside], widths, room if wraps else None)
        for row, values, below in zip(rows, self.rows, self.below, strict=True):
            yield from _line(console, row[:beside], widths, room if wraps else None)
            rest = zip(self.columns[beside:], row[beside:], values[beside:], strict=True)
            named = [_named(name, text) for name, text, value in rest if not _is_empty(value)]
            for text in [Text(" · ").join(named), *below] if named else below:
                yield from _indented(console, text, " " * GAP, room)


def _is_used(rows: Sequence[Sequence[Any]], place: int) -> bool:
    return any(not _is_empty(row[place]) for row in rows)


def _is_empty(value: Any) -> bool:
    return value is None or value == ""


def _on_one_line(value: Any) -> Any:
    return value.replace("\n", " ") if isinstance(value, str) else value


def _named(name: str, text: Text) -> Text:
    from rich.text import Text

    return Text.assemble((f"{name.lower()} ", "dim"), text)


def _layout(widths: Sequence[int], room: int) -> tuple[int, bool]:
    """How many columns fit side by side, and whether the last one is wrapped."""
    ends = [sum(widths[: n + 1]) + GAP * n for n in range(len(widths))]
    if ends[-1] <= room:
        return len(widths), False
    if len(widths) > 1 and ends[-2] + GAP + LEAST_TEXT <= room:
        return len(widths), True
    return max(1, sum(end <= room for end in ends)), False


def _line(
    console: Console, cells: Sequence[Text], widths: Sequence[int], room: int | None
) -> Iterator[Text]:
    """One row: padded cells, with the last one wrapped if there is too little room."""
    from rich.text import Text

    while len(cells) > 1 and cells[-1].plain == NOTHING:
        cells = cells[:-1]
    *first, last = cells
    head = Text(overflow="fold")
    for text, width in zip(first, widths, strict=False):
        head.append_text(text)
        head.append(" " * (width - text.cell_len + GAP))
    if room is None:
        yield head.append_text(last)
    else:
        yield from _indented(console, last, head, room)


def _indented(console: Console, text: Text, head: Text | str, room: int) -> Iterator[Text]:
    """The text after a head; its further lines are indented as far."""
    from rich.text import Text

    before = head if isinstance(head, Text) else Text(head)
    for line in text.wrap(console, room - before.cell_len):
        line.rstrip()
        yield Text.assemble(before, line)
        before = Text(" " * before.cell_len)
