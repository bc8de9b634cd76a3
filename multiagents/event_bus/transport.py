"""Which transport do the settings of earlier versions name for an app's broker?

``broker_transport = "multiagents.event_bus.transport:SteadyTransport"`` stays valid.
"""

from multiagents.transport.kombu_redis import (
    SentinelSteadyTransport,
    SentinelWorkerTransport,
    SteadyTransport,
    WorkerTransport,
)

__all__ = [
    "SentinelSteadyTransport",
    "SentinelWorkerTransport",
    "SteadyTransport",
    "WorkerTransport",
]
