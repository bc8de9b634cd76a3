"""How is the state of a saga explained in a shell?

In short paragraphs that fit the terminal.  Each command to copy has a line of its own; neither a
command nor an id is ever cut.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from multiagents.cli.commands.watch import SagaId
from multiagents.cli.invocation import as_called
from multiagents.cli.output import Json, emit, say
from multiagents.cli.session import connect
from multiagents.cli.times import in_own_zone

_SET_IN, _GOES_ON = "  ", " \\"
_WORDS = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
"""The words of a command; quoted text is one word."""
WIDEST = 100
"""The most columns of a paragraph: longer lines are hard to read."""


def explain(saga_id: SagaId, json_output: Json = False) -> None:
    """Explain the state of a saga, and what would move it. Changes nothing.

    With --json the reasons one by one, with codes, times and commands.
    """
    session = connect()
    told = session.call("explain", saga_id)
    if json_output:
        emit(told)
    else:
        say(laid_out(told, width=paragraph_width(), now_ms=session.now_ms))


def laid_out(told: Mapping[str, Any], *, width: int | None, now_ms: int) -> str:
    """The answer of `explain`, in lines of at most ``width`` columns; None: of any length."""
    from multiagents.core.texts import shown_line
    from multiagents.operations.explain.saga import WHAT_TO_DO

    texts = [told["summary"], *(reason["text"] for reason in told["reasons"])]
    paragraphs = [wrapped(in_own_zone(shown_line(text), now_ms), width) for text in texts]
    if told["commands"]:
        lines = (command_lines(each, width) for each in told["commands"])
        paragraphs.append("\n".join([WHAT_TO_DO, *lines]))
    return "\n\n".join(paragraphs)


def command_lines(command: str, width: int | None) -> str:
    """A command to copy, indented; a long one is broken with backslashes, as a shell accepts it."""
    from multiagents.core.texts import shown_line

    command = as_called(shown_line(command))
    if width is None or len(command) + len(_SET_IN) <= width:
        return _SET_IN + command
    lines = [""]
    for word in _WORDS.findall(command):
        if lines[-1] and len(f"{_SET_IN}  {lines[-1]} {word}{_GOES_ON}") > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return _SET_IN + f"{_GOES_ON}\n{_SET_IN}  ".join(lines)


def paragraph_width() -> int | None:
    """The columns of a paragraph on stdout; None without a terminal, where nothing is wrapped."""
    return min(shutil.get_terminal_size().columns, WIDEST) if sys.stdout.isatty() else None


def wrapped(text: str, width: int | None) -> str:
    """A wrapped paragraph; a word that is longer than a line stays whole."""
    text = as_called(text)
    if width is None:
        return text
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
