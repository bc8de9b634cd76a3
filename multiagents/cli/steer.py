"""How does a person steer sagas from a shell?

Who asked and why goes into each saga's log.  Before what cannot be taken back, a person at a
terminal is asked; a script is not.  A command that a saga's state does not allow is an error that
says what would be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from multiagents.cli.asking import REFUSED, agreed, on_terminal
from multiagents.cli.errors import OK, explained
from multiagents.cli.output import Json, emit, hint, say
from multiagents.cli.session import Session, connect
from multiagents.cli.settling import settle_one
from multiagents.cli.watch import SagaId

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the saga's history.")]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who asks; by default MULTIAGENTS_OPERATOR, or you."),
]
StepName = Annotated[
    str, typer.Argument(metavar="STEP", help="One step's dead letter; else all of the saga's.")
]
SagaIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID", help="Ids of sagas, or their first characters, or Celery ids of their starts."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]

WILL = {
    "cancel": "No new step begins, and what was done is undone, last step first.",
    "rollback": "What was done is undone, last step first.",
    "terminate": "They end as failed and nothing is undone: what was done stays.",
}
"""What is said before these are done, of several sagas: none of them can be taken back."""
NAMED = 10
"""Sagas that a question names."""


class How(NamedTuple):
    """Who asks, why, and how the answer is printed."""

    by: str | None
    reason: str
    as_json: bool


def _steering(command: str, help_text: str) -> Callable[..., None]:
    """The command-line form of an operation that can be taken back."""

    def ask(
        saga_ids: SagaIds, reason: Reason = "", by: By = None, json_output: Json = False
    ) -> None:
        _steer(connect(), command, saga_ids, How(by, reason, json_output))

    ask.__doc__ = help_text
    return ask


def _asking(command: str, help_text: str) -> Callable[..., None]:
    """Likewise of one that cannot."""

    def ask(
        saga_ids: SagaIds,
        reason: Reason = "",
        by: By = None,
        yes: Yes = False,
        json_output: Json = False,
    ) -> None:
        session = connect()
        if not yes and on_terminal() and not _agreed(session, command, saga_ids):
            hint("nothing was changed")
            raise typer.Exit(REFUSED)
        _steer(session, command, saga_ids, How(by, reason, json_output))

    ask.__doc__ = f"{help_text}\n\nOn a terminal it asks first; in a script it acts at once."
    return ask


pause = _steering("pause", "Hold back new steps of sagas; running ones end.")
resume = _steering("resume", "Let paused sagas go on.")
cancel = _asking("cancel", "Stop sagas and undo what they did.")
rollback = _asking("rollback", "Undo completed sagas, last step first.")
terminate = _asking("terminate", "End sagas as failed and undo nothing: what they did stays.")


def retry(
    saga_id: SagaId,
    step: StepName = "",
    reason: Reason = "",
    by: By = None,
    json_output: Json = False,
) -> None:
    """Try the dead letters of a saga again: its parked steps and undos."""
    settle_one(connect(), "retry", saga_id, step, by=by, reason=reason, as_json=json_output)


def remove(saga_id: SagaId, reason: Reason = "", by: By = None, json_output: Json = False) -> None:
    """Take away a damaged saga with all that lists it; nothing is undone."""
    removed = connect().call("remove", saga_id, by=by, reason=reason)
    if json_output:
        emit(removed)
    else:
        say(f"saga {saga_id} is removed: {'; '.join(removed['problems'])}")


def _agreed(session: Session, command: str, saga_ids: Sequence[str]) -> bool:
    found: list[Mapping[str, Any]] = []
    for saga_id in dict.fromkeys(saga_ids):
        saga, problem = _tried(session, "get", saga_id, several=len(saga_ids) > 1)
        if saga is not None:
            found.append(saga)
        else:
            hint(f"not among them: {saga_id}: {problem}")
    return not found or agreed(question(command, found), verb=command)


def question(command: str, sagas: Sequence[Mapping[str, Any]]) -> str:
    """What a person is asked: which sagas, in which states, and what becomes of them."""
    lines = [f"  {each['transaction_id']}  {each['workflow']}, {each['state']}" for each in sagas]
    if len(lines) > NAMED:
        lines[NAMED:] = [f"  and {len(lines) - NAMED} more"]
    states = Counter(str(each["state"]) for each in sagas)
    if len(sagas) == 1:
        count = "this saga"
    else:
        count = f"{len(sagas)} sagas ({', '.join(f'{n} {state}' for state, n in states.items())})"
    will = WILL[command] if len(sagas) > 1 else WILL[command].replace("They end", "It ends")
    return "\n".join([*lines, will, f"{command} {count}?"])


def _steer(session: Session, command: str, saga_ids: Sequence[str], how: How) -> None:
    """Ask it of each, and tell what each is then; of several, which could not be asked."""
    wanted = list(dict.fromkeys(saga_ids))
    failed = 0
    for saga_id in wanted:
        given = {"by": how.by, "reason": how.reason}
        saga, problem = _tried(session, command, saga_id, several=len(wanted) > 1, **given)
        failed += saga is None
        if how.as_json:
            emit(saga or {"transaction_id": saga_id, "state": None, "problem": problem})
        elif saga is not None:
            say(f"saga {saga['transaction_id']} is {saga['state']}")
        else:
            hint(f"{saga_id}: {problem}")
    if failed and not how.as_json:
        hint(f"{failed} of {len(wanted)} could not be asked to {command}")
    raise typer.Exit(REFUSED if failed else OK)


def _tried(
    session: Session, operation: str, saga_id: str, *, several: bool, **given: Any
) -> tuple[Mapping[str, Any] | None, str]:
    """What an operation gives, or why it does not; raises that where only one saga is meant."""
    from multiagents.core.exceptions import MultiAgentsError
    from multiagents.storage.client import UNREACHABLE, StoreError

    try:
        saga: Mapping[str, Any] = session.call(operation, saga_id, **given)
    except UNREACHABLE:
        raise
    except (MultiAgentsError, StoreError) as error:
        if not several:
            raise
        return None, explained(error)
    return saga, ""
