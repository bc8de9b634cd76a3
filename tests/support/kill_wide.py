"""Which workflows have more branches than one script publishes messages for?

A worker or client imports this module (MULTIAGENTS_IMPORTS).
"""

from __future__ import annotations

from multiagents import WorkflowBuilder
from multiagents.engine.dispatcher import CHUNK

FANNED = CHUNK + CHUNK // 5
"""Branches after two steps: sent all at once, they take one script more than the commit."""
WIDE = 2 * CHUNK + CHUNK // 2
"""Branches at the start: sent all at once, they take three scripts."""


def branches(count: int) -> list[tuple[str, str]]:
    """Steps of a parallel block with their worker."""
    return [(f"b{number}", "kp_do") for number in range(count)]


fanned = WorkflowBuilder("kp_fans").add_step("one", "kp_do").add_step("two", "kp_do")
fanned.parallel(branches(FANNED)).add_step("join", "kp_do").build().register()
WorkflowBuilder("kp_wide").parallel(branches(WIDE)).build().register()
