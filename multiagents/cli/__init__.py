"""What can be done from a shell?

``multiagents COMMAND``.  Rules for every command:

- ``--json`` prints one object, or one a line for lists and streams, and nothing else to stdout.
- An error is one line on stderr, ``error: ...``; a traceback only with ``--debug``.
- Exit codes: 0 done, 1 the saga failed (or the doctor found a failure), 2 wrong use or no server,
  130 ended by Ctrl-C, without a traceback.
- Secrets are never printed; passwords in URLs are masked.
"""

from __future__ import annotations

from collections.abc import Sequence

from multiagents.core.interrupts import end_at_once, ending_at_once


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (by default this process's) and return its exit code."""
    with ending_at_once():  # most of half a second
        from multiagents.cli.app import run

    code = run(argv)
    if argv is None:  # nothing but the interpreter's end comes
        end_at_once()
    return code
