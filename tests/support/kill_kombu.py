"""How do a process's messages go through Celery and kombu, each after its commit?

A worker or client imports this module (MULTIAGENTS_IMPORTS). A receiver of publishing signals must
get every message, so no commit publishes one itself.
"""

from __future__ import annotations

from typing import Any

from celery import signals


@signals.before_task_publish.connect(weak=False)  # type: ignore[untyped-decorator]  # no types
def listen(**_: Any) -> None:
    """Receive a message, and leave it unchanged."""
