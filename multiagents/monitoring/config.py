"""How is monitoring set up?

`MonitoringConfig` is monitoring.yaml as a value; it makes the logger and the two monitors that
follow it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from multiagents.core.exceptions import InvalidInput
from multiagents.monitoring.config_models import (
    EventMonitoringConfig,
    LoggingConfig,
    WorkerMonitoringConfig,
)
from multiagents.monitoring.event_monitor import EventMonitor
from multiagents.monitoring.worker_monitor import WorkerMonitor

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from structlog.stdlib import BoundLogger


class MonitoringConfig(BaseModel):
    """Logging, event monitoring and worker monitoring; each may be given as a dict.

    config = MonitoringConfig(logging={"default_logger": "console", "level": "DEBUG"})
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    logging: LoggingConfig = LoggingConfig()
    event_monitoring: EventMonitoringConfig = EventMonitoringConfig()
    worker_monitoring: WorkerMonitoringConfig = WorkerMonitoringConfig()

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The configuration in a YAML file.  Raises InvalidInput naming the file and the key."""
        try:
            return cls.model_validate(_read(Path(path)))
        except ValidationError as error:
            raise InvalidInput(f"{path}: {_mistakes(error)}") from error

    def create_logger(self) -> BoundLogger:
        """A structlog logger as configured; calling again does not add a second output.

        The process has one set-up: the last configuration that differs replaces the one before.
        """
        from multiagents.monitoring.logs import open_logs  # imports structlog: a tenth of a second

        return open_logs(self.logging)

    def create_event_monitor(self, logger: Any = None) -> EventMonitor | None:
        """The event monitor as configured; None if it is switched off."""
        section = self.event_monitoring
        if not section.enabled:
            return None
        return EventMonitor(
            logger,
            retention_hours=section.trace_retention_hours,
            max_traces=section.max_traces,
        )

    def create_worker_monitor(self, logger: Any = None) -> WorkerMonitor | None:
        """The worker monitor as configured; None if it is switched off."""
        section = self.worker_monitoring
        if not section.enabled:
            return None
        return WorkerMonitor(logger, health_check_interval_s=section.health_check_interval_seconds)


def _read(path: Path) -> Any:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(
            f"cannot read the monitoring configuration {path}: {error.strerror};"
            " expected a YAML file, or use MonitoringConfig() for the defaults"
        ) from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidInput(
            f"{path} holds a {type(content).__name__}; expected the sections"
            f" {', '.join(MonitoringConfig.model_fields)}"
        )
    return content


def _mistakes(error: ValidationError) -> str:
    return "; ".join(_say(item) for item in error.errors(include_url=False))


def _say(item: ErrorDetails) -> str:
    place = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"{place}: no such key; check its spelling"
    return f"{place} is {item['input']!r}: {item['msg']}"
