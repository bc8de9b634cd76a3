"""How does a person steer a saga from a shell?

Who asked and why goes into the saga's log.  A command that the saga's state did not allow is an
error: the log has it, but nothing moved.
"""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from multiagents.cli.errors import CommandError
from multiagents.cli.output import Json, emit, say
from multiagents.cli.session import connect
from multiagents.cli.watch import SagaId

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the saga's history.")]

REACHED = {
    "pause": ("paused",),
    "resume": ("running", "pending", "compensating", "completed"),
    "cancel": ("compensating", "cancelled"),
}
"""The states that show that a command took effect."""


def pause(saga_id: SagaId, reason: Reason = "", json_output: Json = False) -> None:
    """Hold back new steps of a saga; running ones end."""
    _steer("pause", saga_id, reason, as_json=json_output)


def resume(saga_id: SagaId, reason: Reason = "", json_output: Json = False) -> None:
    """Let a paused saga go on."""
    _steer("resume", saga_id, reason, as_json=json_output)


def cancel(saga_id: SagaId, reason: Reason = "", json_output: Json = False) -> None:
    """Stop a saga and undo what it did."""
    _steer("cancel", saga_id, reason, as_json=json_output)


def _steer(command: str, saga_id: str, reason: str, *, as_json: bool) -> None:
    session = connect()
    before = session.call("get", saga_id)
    _refuse_early(command, before)
    saga = session.call(command, saga_id, by=_user(), reason=reason)
    if as_json:
        emit(saga)
    else:
        say(f"saga {saga_id} is {saga['state']}")
    if saga["state"] not in REACHED[command]:
        why = "; ".join(saga["attention"]) or f"it is {saga['state']}"
        raise CommandError(f"{command} changed nothing for saga {saga_id}: {why}")


def _refuse_early(command: str, saga: dict[str, Any]) -> None:
    """What can be seen to be of no use is not asked: it would only lengthen the log."""
    from multiagents.core.states import ENDED

    state = saga["state"]
    if state in ENDED or (command == "resume" and state != "paused"):
        raise CommandError(
            f"cannot {command} saga {saga['transaction_id']}: it is {state};"
            f" see `multiagents history {saga['transaction_id']}`"
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user that has no name
        return ""
