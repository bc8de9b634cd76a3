"""Which workers and workflows do the tests of the command line run?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiagents import NonRetryableError, WorkflowBuilder, worker
from tests.support.processes import wait_for

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


@worker("cli.undo_at_gate")
def undo_at_gate(context: Any) -> dict[str, Any]:
    """Undo only if the input's file exists."""
    if not Path(context["gate"]).exists():
        raise NonRetryableError("the bank is closed")
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
    WorkflowBuilder("stubborn", description="Its undo needs a file")
    .add_step("first", "cli.greet", compensation="cli.undo_at_gate")
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
