"""How does a command ask an operator for confirmation?

On stderr: stdout holds only the answer of the command.
"""

from __future__ import annotations

import sys

from multiagents.cli.errors import CommandError
from multiagents.cli.output import hint

REFUSED = 1
"""Exit code: the operator said no, or a part could not be done."""


def on_terminal() -> bool:
    """Whether an operator can see and answer a question; a script is not asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str, *, verb: str) -> bool:
    """Whether the answer is yes.  Anything else is no.  Raises CommandError without an answer."""
    # Not by typer, which writes a part of its question to stdout.
    hint(f"{question} [y/N] ", end="")
    answer = sys.stdin.readline()
    if not answer:
        hint("")
        raise CommandError(f"no terminal to confirm {verb}; add --yes")
    return answer.strip().lower() in ("y", "yes")
