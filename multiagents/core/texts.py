"""How is a text made safe for a terminal, and how are clauses joined to a message?

Reasons, ids, errors, names and tags come from any source.  A control character in one of them could
move the cursor, rename the window or hide other text.  So it is shown as its escape.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TextIO

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
"""Control characters of ASCII and Latin-1, except the tab and the line feed."""
_ORDER = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Characters that change the direction of writing, and so the order of characters."""
_HALVES = "\ud800-\udfff"
"""Lone surrogates, which cannot be encoded."""
_ENDS = ("?", "!", ".", "\u2026")
"""The ends of a sentence."""
_WORDS = re.compile(r"(\s*)((?:`[^`\n]*`|\S)+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_UNSAFE = re.compile(f"[{_CONTROLS}{_ORDER}{_HALVES}]")
_UNSAFE_IN_LINE = re.compile(f"[\n\u2028\u2029\x85{_CONTROLS}{_ORDER}{_HALVES}]")


def shown(text: str) -> str:
    """``text`` with its control characters as escapes: ``\\x1b``."""
    return _UNSAFE.sub(_escape, text)


def shown_line(text: str) -> str:
    """``text`` with its control characters as escapes, on one line."""
    return _UNSAFE_IN_LINE.sub(_escape, text)


def at_words(text: str, width: int | None, indent: str = "") -> str:
    """The text in lines of at most ``width`` columns, broken between words; None: unchanged.

    A command in backquotes counts as one word; a word longer than a line stays whole.  Colours have
    no width.  ``indent`` begins all lines except the first.
    """
    if width is None:
        return text
    return "\n".join(_lines_of(line, width, indent) for line in text.split("\n"))


def _lines_of(text: str, width: int, indent: str) -> str:
    made, column = "", 0
    for gap, word in _WORDS.findall(text):
        size = len(_COLOURS.sub("", word))
        if made.strip() and column + len(gap) + size > width:
            made, column = f"{made}\n{indent}{word}", len(indent) + size
        else:
            made, column = f"{made}{gap}{word}", column + len(gap) + size
    return made + text[len(text.rstrip()) :]  # a question keeps the space before its answer


def columns_of(stream: TextIO) -> int | None:
    """The width of a stream's terminal; None without a terminal, or if the width is unknown."""
    if not stream.isatty():
        return None
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):  # isatty() was true, but it is no terminal
        return None


def some_of(texts: Iterable[str], most: int, *, by: str = ", ", count: int | None = None) -> str:
    """The first ``most`` texts, and the number of the others; empty if there are none.

    ``count`` is the number of all, if ``texts`` has only some of them.
    """
    listed = list(texts)
    left = (len(listed) if count is None else count) - len(listed[:most])
    more = f"{by.strip(', ')} and {left} more" if left > 0 else ""
    return by.join(listed[:most]) + more


def joined(*clauses: str) -> str:
    """Clauses as one message: a sentence ends at ``?``, ``!`` or ``.``, else ``;`` separates them.

    Empty clauses are left out.
    """
    message = ""
    for clause in filter(None, clauses):
        if not message:
            message = clause
        elif message.endswith(_ENDS):
            message = f"{message} {clause[0].upper()}{clause[1:]}"
        else:
            message = f"{message}; {clause}"
    return message


def sentence(text: str) -> str:
    """The text with a full stop, unless it already ends like a sentence, as errors often do."""
    return text if text.endswith(_ENDS) else f"{text}."


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode()
