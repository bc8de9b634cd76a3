"""How is a change of another process waited for, with a deadline?"""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_S = 0.02


def until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Whether the condition came true within ``deadline_s``."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_S)
    return True
