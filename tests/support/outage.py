"""How do tests take a server away for a while?"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from multiagents.devserver.server import EmbeddedServer


@contextmanager
def without(server: EmbeddedServer, how: str) -> Iterator[None]:
    """A time in which a server is gone ("away"), or only accepts connections ("silent")."""
    if how == "silent":
        os.kill(server.pid, signal.SIGSTOP)
    else:
        server.kill()
    try:
        yield
    finally:
        if how == "silent":
            os.kill(server.pid, signal.SIGCONT)
        else:
            server.restart()
