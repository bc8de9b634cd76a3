"""How does a saga's history look as text?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

WORDS = {
    "step_claimed": "started",
    "step_succeeded": "succeeded",
    "step_failed": "failed",
    "undo_claimed": "undo started",
    "undo_succeeded": "undone",
    "undo_failed": "undo failed",
}
"""The entries that are shown; the others are internal to the engine."""


def print_timeline(history: Iterable[Mapping[str, Any]]) -> None:
    """Print the history that ``multiagents.sagas.history`` gives, with seconds since the start."""
    events = list(history)
    start_s = _seconds(events[0])
    for event in events:
        text = _told(event)
        if text:
            print(f"  {_seconds(event) - start_s:5.2f} s  {event['step'] or 'saga':<13} {text}")


def _told(event: Mapping[str, Any]) -> str | None:
    if event["type"].startswith("saga_"):
        return str(event["type"]).removeprefix("saga_")
    text = WORDS.get(event["type"])
    error = event["data"].get("error")
    return f"{text}: {error['message']}" if text and error else text


def _seconds(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()
