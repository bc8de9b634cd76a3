"""How is a person asked before something is done?

On stderr, so that stdout holds the answer of the command alone.
"""

from __future__ import annotations

import sys

from multiagents.cli.errors import CommandError
from multiagents.cli.output import hint

REFUSED = 1
"""Exit code: the answer was no, or some of it could not be done."""


def on_terminal() -> bool:
    """Whether a person sees the question and can answer; a script is asked nothing."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str, *, verb: str) -> bool:
    """Whether the answer is yes; anything else is no.  Raises CommandError if there is none."""
    # Not by typer, which writes a part of its question to stdout.
    hint(f"{question} [y/N] ", end="")
    answer = sys.stdin.readline()
    if not answer:
        hint("")
        raise CommandError(f"nobody there to ask whether to {verb}; add --yes")
    return answer.strip().lower() in ("y", "yes")
