"""What does the worker of `multiagents dev` say of itself once it takes work?"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

VERBOSE, QUIET = "verbose", "quiet"
"""How much of what Celery says is printed."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker is and knows."""

    slots: int = 1
    queues: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    workflows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Name -> examples, of its own modules, in the order of their registration."""
    missing: dict[str, str] = field(default_factory=dict)
    """Functions that its workflows name and it has not -> what that means."""
    files: tuple[str, ...] = ()
    """Of the user's code, and of definitions."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """What `to_json` wrote."""
        return cls(**json.loads(text))
