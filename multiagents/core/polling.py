"""How does a thread wait for a condition outside it, up to a deadline?"""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_S = 0.02


def until(condition: Callable[[], bool], deadline_s: float, *, poll_s: float = POLL_S) -> bool:
    """Whether the condition became true within ``deadline_s``; its errors pass through."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(poll_s)
    return True
