"""Which keys does monitoring.yaml have?

Every key has a default, an unknown key is an error, and each unit is in its name or docs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoggingConfig(_Section):
    """Where log lines go."""

    default_logger: Literal["file", "console", "composite"] = "file"
    """``file``: JSON lines; ``console``: text on stderr; ``composite``: both."""
    level: Annotated[Level, BeforeValidator(_upper)] = "INFO"
    file_path: Path = Path("./logs/multiagents.log")
    max_bytes: Annotated[int, Field(ge=1024)] = 10 * 1024 * 1024
    """The file is rotated before it grows beyond this."""
    backup_count: Annotated[int, Field(ge=1, le=1000)] = 5
    """Rotated files kept: ``multiagents.log.1`` is the newest."""


class EventMonitoringConfig(_Section):
    """How long the traces of events are kept."""

    enabled: bool = True
    trace_retention_hours: Annotated[float, Field(gt=0)] = 24
    max_traces: Annotated[int, Field(ge=1)] = 10_000
    """How many sagas have a trace; the one that is unchanged for the longest time goes first."""


class WorkerMonitoringConfig(_Section):
    """How often a worker's health is judged for the log."""

    enabled: bool = True
    health_check_interval_seconds: Annotated[float, Field(gt=0)] = 30
