"""How does a person steer a saga from a shell?

Who asked and why goes into the saga's log.  A command that the saga's state does not allow is an
error that says what would be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from multiagents.cli.output import Json, emit, say
from multiagents.cli.session import connect
from multiagents.cli.watch import SagaId

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the saga's history.")]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who asks; by default MULTIAGENTS_OPERATOR, or you."),
]
StepName = Annotated[
    str, typer.Argument(metavar="STEP", help="One step's dead letter; else all of the saga's.")
]


def _steering(command: str, help_text: str) -> Callable[..., None]:
    """The command-line form of one of the operations on a saga."""

    def ask(saga_id: SagaId, reason: Reason = "", by: By = None, json_output: Json = False) -> None:
        steer(command, saga_id, by=by, reason=reason, as_json=json_output)

    ask.__doc__ = help_text
    return ask


pause = _steering("pause", "Hold back new steps of a saga; running ones end.")
resume = _steering("resume", "Let a paused saga go on.")
cancel = _steering("cancel", "Stop a saga and undo what it did.")
rollback = _steering("rollback", "Undo a completed saga, last step first.")
terminate = _steering("terminate", "End a saga as failed and undo nothing: what it did stays.")


def retry(
    saga_id: SagaId,
    step: StepName = "",
    reason: Reason = "",
    by: By = None,
    json_output: Json = False,
) -> None:
    """Try the dead letters of a saga again: its parked steps and undos."""
    steer("retry", saga_id, step, by=by, reason=reason, as_json=json_output)


def remove(saga_id: SagaId, reason: Reason = "", by: By = None, json_output: Json = False) -> None:
    """Take away a damaged saga with all that lists it; nothing is undone."""
    removed = connect().call("remove", saga_id, by=by, reason=reason)
    if json_output:
        emit(removed)
    else:
        say(f"saga {saga_id} is removed: {'; '.join(removed['problems'])}")


def steer(
    command: str, saga_id: str, *step: str, by: str | None, reason: str, as_json: bool
) -> None:
    """Ask, and tell what the saga is then."""
    saga = connect().call(command, saga_id, *step, by=by, reason=reason)
    if as_json:
        emit(saga)
    else:
        say(f"saga {saga['transaction_id']} is {saga['state']}")
