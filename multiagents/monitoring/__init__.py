"""How is it going?  Logs, counts and health of events and workers."""

from __future__ import annotations

from multiagents.core.log_records import StepFilter
from multiagents.monitoring.config import MonitoringConfig
from multiagents.monitoring.event_monitor import EventMonitor
from multiagents.monitoring.worker_monitor import WorkerMonitor

__all__ = ["EventMonitor", "MonitoringConfig", "StepFilter", "WorkerMonitor"]
