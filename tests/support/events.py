"""Which event do tests publish if any will do?"""

from __future__ import annotations

from multiagents.core.events import CommandEvent


def command(saga: str = "t") -> CommandEvent:
    """A command with an old timestamp."""
    return CommandEvent(
        transaction_id=saga, correlation_id="c", worker_name="w", timestamp="2023-11-14T22:13:20Z"
    )
