"""Workers and workflows that tests with real processes run."""

from __future__ import annotations

import os
from typing import Any

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


WorkflowBuilder("echoes").add_step("one", "echo").add_step("two", "async_echo").add_step(
    "three", "echo"
).build().register()

WorkflowBuilder("fails_at_two").add_step("one", "echo", compensation="undo_echo").add_step(
    "two", "break", compensation="undo_echo"
).build().register()
