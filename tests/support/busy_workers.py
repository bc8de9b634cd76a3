"""Does a step return while its server is busy?"""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import ResponseError

from multiagents import WorkflowBuilder, worker
from multiagents.core.settings import get_settings
from tests.support.processes import wait_for


@worker("busy_once")
def busy_once(context: dict[str, Any]) -> dict[str, Any]:
    with redis.Redis.from_url(get_settings().redis_url) as client:
        client.incr("begun")
        wait_for(lambda: _refuses(client), what="a busy server")
    return {"done": True}


def _refuses(client: Any) -> bool:
    try:
        client.ping()
    except ResponseError as error:
        return "BUSY" in str(error)
    return False


WorkflowBuilder("busy_once").add_step("one", "busy_once").build().register()
