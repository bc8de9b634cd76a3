"""A step that returns while its server is busy."""

from __future__ import annotations

import time
from typing import Any

import redis

from multiagents import WorkflowBuilder, worker
from multiagents.core.settings import get_settings


@worker("busy_once")
def busy_once(context: dict[str, Any]) -> dict[str, Any]:
    with redis.Redis.from_url(get_settings().redis_url) as client:
        client.incr("begun")
    time.sleep(0.8)
    return {"done": True}


WorkflowBuilder("busy_once").add_step("one", "busy_once").build().register()
