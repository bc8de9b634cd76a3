"""How does a program follow a saga to its end?

The guide's programs share this loop. A deadline keeps a broken one from waiting for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from multiagents import Orchestrator

ENDED = {"completed", "failed", "compensated", "cancelled"}
POLL_S = 0.02
DEADLINE_S = 20


async def run_to_the_end(
    orchestrator: Orchestrator, name: str, given: dict[str, Any]
) -> dict[str, Any]:
    """Start a saga and poll it until its end; returns its last status."""
    transaction_id = await orchestrator.execute_workflow(name, given)
    async with asyncio.timeout(DEADLINE_S):
        while True:
            status = await orchestrator.get_status(transaction_id)
            if status["state"] in ENDED:
                return status
            await asyncio.sleep(POLL_S)
