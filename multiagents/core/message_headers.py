"""Which headers of a Celery message did its sender set?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiagents.core.names import HEADER, TELLS

CELERYS = frozenset(
    [
        "args",
        "as_execution_options",
        "callbacks",
        "called_directly",
        "chain",
        "children",
        "chord",
        "clear",
        "correlation_id",
        "delivery_info",
        "errbacks",
        "eta",
        "expires",
        "get",
        "group",
        "group_index",
        "headers",
        "hostname",
        "id",
        "ignore_result",
        "is_eager",
        "kwargs",
        "logfile",
        "loglevel",
        "origin",
        "parent_id",
        "properties",
        "replaced_task_nesting",
        "reply_to",
        "retries",
        "root_id",
        "shadow",
        "soft_time_limit",
        "stamped_headers",
        "stamps",
        "taskset",
        "time_limit",
        "timelimit",
        "update",
        "utc",
    ]
)
"""The names in ``celery.app.task.Context`` of Celery 5.7."""
OWN = CELERYS | {"argsrepr", "compression", "kwargsrepr", "lang", "task", HEADER, TELLS}
"""The headers that Celery and the engine set."""


def custom(request: Mapping[str, Any]) -> dict[str, Any]:
    """The headers of a request that its sender set."""
    return {name: request[name] for name in request.keys() - OWN}
