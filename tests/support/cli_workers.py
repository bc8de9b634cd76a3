"""Workers and workflows for the tests of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiagents import NonRetryableError, WorkflowBuilder, worker
from tests.processes import wait_for

GATE_S = 30.0


@worker("cli.greet")
def greet(context: Any) -> dict[str, Any]:
    return {"greeting": f"Hello {context.get('name', 'you')}"}


@worker("cli.wait")
def wait(context: Any) -> dict[str, Any]:
    """Report progress, then wait until the file of the input appears."""
    context.heartbeat(progress=0.4, note="page 4/10")
    wait_for(Path(context["gate"]).exists, GATE_S)
    return {"waited": True}


@worker("cli.fail")
def fail(context: Any) -> dict[str, Any]:
    raise NonRetryableError("no [bold]luck[/bold]")


@worker("cli.undo")
def undo(context: Any) -> dict[str, Any]:
    return {}


WorkflowBuilder("greeting", tags=["polite"]).add_step("greet", "cli.greet").build().register()
(
    WorkflowBuilder("gated", description="Waits for a file")
    .add_step("first", "cli.greet", compensation="cli.undo")
    .add_step("second", "cli.wait", compensation="cli.undo")
    .add_step("third", "cli.greet")
    .build()
    .register()
)
(
    WorkflowBuilder("failing")
    .add_step("first", "cli.greet", compensation="cli.undo")
    .add_step("second", "cli.fail")
    .build()
    .register()
)
