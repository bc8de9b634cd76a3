"""How do tests use the command line?

They run it in this process, as a shell would run it in another.
"""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from multiagents.cli import main
from multiagents.core.settings import get_settings

NO_SERVER = "redis://127.0.0.1:1/0"
"""No server listens on port 1."""


@dataclass(frozen=True)
class Done:
    """A finished command: its exit code and its output."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        (line,) = self.lines
        return line

    @property
    def lines(self) -> list[Any]:
        """The objects on stdout, one per line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal(io.StringIO):
    """A standard output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(*words: str, url: str, columns: int = 80, **env: str) -> Done:
    """The same, as a terminal of that width shows it, without colours."""
    shown = {"COLUMNS": str(columns), "LINES": "50", "TERM": "xterm-256color", **env}
    done = cli(*words, url=url, terminal=True, **shown)
    return Done(done.code, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.out), done.err)


def cli(
    *words: str, url: str | None = NO_SERVER, stdin: str = "", terminal: bool = False, **env: str
) -> Done:
    """Run ``multiagents WORDS`` against the server at ``url``; None leaves its variable unset."""
    out, err = Terminal() if terminal else io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
        named = {} if url is None else {"MULTIAGENTS_REDIS_URL": url}
        for name, value in {**named, **env}.items():
            patch.setenv(name, value)
        patch.setattr("sys.stdin", io.StringIO(stdin))
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = main(words)
        finally:
            structlog.reset_defaults()
    get_settings.cache_clear()
    return Done(code, out.getvalue(), err.getvalue())
