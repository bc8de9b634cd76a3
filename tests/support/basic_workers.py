"""Which workers and workflows do tests with real processes run?"""

from __future__ import annotations

import logging
import os
from typing import Any

import structlog

from multiagents import WorkflowBuilder, worker
from multiagents.core.exceptions import NonRetryableError


@worker("echo")
def echo(context: dict[str, Any]) -> dict[str, Any]:
    return {"echo": context.get("text", "")}


@worker("async_echo")
async def async_echo(context: dict[str, Any]) -> dict[str, Any]:
    return {"async_echo": context["echo"]}


@worker("break")
def break_(context: dict[str, Any]) -> dict[str, Any]:
    raise NonRetryableError("broken")


@worker("whoami")
def whoami(context: dict[str, Any]) -> dict[str, Any]:
    return {context.step: os.getpid()}  # type: ignore[attr-defined]  # it is a Context


@worker("undo_echo")
def undo_echo(context: dict[str, Any]) -> dict[str, Any]:
    return {"undone": True}


@worker("tells")
def tells(context: dict[str, Any]) -> dict[str, Any]:
    """Logs in both ways, below the handlers of its process."""
    logging.getLogger("shop").warning("told by logging")
    structlog.get_logger("shop").warning("told by structlog")
    return {}


@worker("tells_async")
async def tells_async(context: dict[str, Any]) -> dict[str, Any]:
    return tells(context)  # type: ignore[no-any-return]  # a worker is its function


WorkflowBuilder("echoes").add_step("one", "echo").add_step("two", "async_echo").add_step(
    "three", "echo"
).build().register()

WorkflowBuilder("telling").add_step("one", "tells").add_step(
    "two", "tells_async"
).build().register()

WorkflowBuilder("fails_at_two").add_step("one", "echo", compensation="undo_echo").add_step(
    "two", "break", compensation="undo_echo"
).build().register()
