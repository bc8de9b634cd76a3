"""What does the worker of `multiagents dev` report when it is ready?"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

VERBOSE, QUIET = "verbose", "quiet"
"""How many of Celery's messages are printed."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The facts about a ready worker."""

    slots: int = 1
    queues: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    workflows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Name -> examples, of its own modules, in the order of their registration."""
    missing: dict[str, str] = field(default_factory=dict)
    """Functions that its workflows name and it lacks -> the consequence."""
    files: tuple[str, ...] = ()
    """Files of the user's code and of definitions."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """What `to_json` wrote."""
        return cls(**json.loads(text))
