"""How does text reach a terminal, and how another stream?"""

from __future__ import annotations

import io

import pytest

from multiagents.cli.output import hint
from multiagents.core.texts import at_words, columns_of


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_line_is_broken_between_words_and_a_command_never() -> None:
    """A word longer than a line stays whole, and existing blanks stay."""
    text = "error: no workflow; see `multiagents workflows list` in /a/very/long/path.json"
    assert at_words(text, 24, "  ").split("\n") == [
        "error: no workflow; see",
        "  `multiagents workflows list`",
        "  in",
        "  /a/very/long/path.json",
    ]
    assert at_words("  two  blanks\nGo on? [y/N] ", 80) == "  two  blanks\nGo on? [y/N] "
    assert at_words(text, None) == text
    assert at_words("", 80) == ""


def test_only_a_terminal_gets_its_lines_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs read an error as one line, and a terminal of unknown width wraps by itself."""
    text = "error: " + "a long word or two " * 8
    shown = {}
    for columns, stream in (("40", Terminal()), ("40", io.StringIO()), ("", Terminal())):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr("sys.stderr", stream)
        hint(text)
        shown[columns, stream.isatty()] = stream.getvalue()
    assert max(map(len, shown["40", True].splitlines())) <= 40
    assert shown["40", False] == shown["", True] == f"{text}\n"
    assert columns_of(Terminal()) is None
