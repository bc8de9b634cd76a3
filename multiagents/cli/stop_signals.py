"""What do Ctrl-C, SIGTERM and a closed terminal do to a command that runs processes?

The first signal unwinds the command, which stops all its processes.  Later signals never interrupt
that; `hurried` tells the command not to wait for running steps.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from multiagents.cli.errors import OK

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Asked:
    """How many stop signals this process has received."""

    times = 0


def hurried() -> bool:
    """Whether another signal came during the stop."""
    return _Asked.times > 1


@contextmanager
def stopped_by_signals(code: int = OK, *, then: Callable[[], None] | None = None) -> Iterator[None]:
    """Let the signals unwind the block, then call ``then`` and exit with ``code``.

    By default a signal is a normal end, with exit code 0.
    """

    def stop(number: int, frame: object) -> None:
        _Asked.times += 1
        if _Asked.times == 1:
            raise KeyboardInterrupt

    _Asked.times = 0
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        if then is not None:
            then()
        raise typer.Exit(code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
