"""How does a person steer sagas from a shell?

Who asked and why goes into each saga's log.  Before what cannot be taken back, a person at a
terminal is asked; a script is not.  A command that a saga's state does not allow is an error that
says what would be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import typer

from multiagents.cli.commands.watch import SagaId
from multiagents.cli.confirmation import REFUSED, agreed, on_terminal
from multiagents.cli.errors import OK, CommandError, explained
from multiagents.cli.output import Json, emit, hint, say
from multiagents.cli.session import Session, connect, is_whole
from multiagents.cli.settlement_report import settle_one
from multiagents.core.states import Command

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the saga's history.")]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who asks; by default MULTIAGENTS_OPERATOR, or you."),
]
StepName = Annotated[
    str, typer.Argument(metavar="STEP", help="One step's dead letter; else all of the saga's.")
]
StepOrSagas = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STEP|ID",
        help="One step's dead letter, else all of the saga's; or the whole ids of more sagas.",
    ),
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
DONE_ALREADY = {"pause": "paused", "cancel": "cancelled"}
"""What asks for nothing new where it was asked before, and how that is told."""
NAMED = 10
"""Sagas that a question names."""


class ActionOptions(NamedTuple):
    """Who asks, why, and how the answer is printed."""

    by: str | None
    reason: str
    as_json: bool


def _steering(command: str, help_text: str) -> Callable[..., None]:
    """The command-line form of an operation that can be taken back."""

    def ask(
        saga_ids: SagaIds, reason: Reason = "", by: By = None, json_output: Json = False
    ) -> None:
        _steer(connect(), command, saga_ids, ActionOptions(by, reason, json_output))

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
        how = ActionOptions(by, reason, json_output)
        unable = {} if yes or not on_terminal() else _asked_first(session, command, saga_ids)
        _steer(session, command, saga_ids, how, unable=unable)

    ask.__doc__ = f"{help_text}\n\nOn a terminal it asks first; in a script it acts at once."
    return ask


pause = _steering("pause", "Hold back new steps of sagas; running ones end.")
resume = _steering("resume", "Let paused sagas go on.")
cancel = _asking("cancel", "Stop sagas and undo what they did.")
rollback = _asking("rollback", "Undo completed sagas, last step first.")
terminate = _asking("terminate", "End sagas as failed and undo nothing: what they did stays.")


def retry(
    saga_id: SagaId,
    words: StepOrSagas = None,
    reason: Reason = "",
    by: By = None,
    json_output: Json = False,
) -> None:
    """Try the dead letters of sagas again: their parked steps and undos.

    ID STEP means one step of a saga; ID ID ... several sagas, by their whole ids.
    """
    session, given = connect(), words or []
    if not given or not any(map(is_whole, given)):
        step = _one_step(given)
        settle_one(session, "retry", saga_id, step, by=by, reason=reason, as_json=json_output)
        return
    _steer(session, "retry", [saga_id, *given], ActionOptions(by, reason, json_output))


def _one_step(words: Sequence[str]) -> str:
    """The step of ``retry ID STEP``.  Raises CommandError for several."""
    if len(words) > 1:
        raise CommandError(
            "retry takes ID [STEP] for one saga, or the whole ids of several: ID ID ..."
        )
    return words[0] if words else ""


def remove(saga_id: SagaId, reason: Reason = "", by: By = None, json_output: Json = False) -> None:
    """Take away a damaged saga with all that lists it; nothing is undone."""
    removed = connect().call("remove", saga_id, by=by, reason=reason)
    if json_output:
        emit(removed)
    else:
        say(f"saga {saga_id} is removed: {'; '.join(removed['problems'])}")


class Meant(NamedTuple):
    """A saga that a question names."""

    saga: Mapping[str, Any]
    caution: str = ""
    """What should be known of it before."""


def _asked_first(session: Session, command: str, saga_ids: Sequence[str]) -> dict[str, str]:
    """Ask a person about those that can be steered; the others, by id with why not.

    These are told first.  Where only one saga is meant, raises why not instead of asking.
    """
    meant: list[Meant] = []
    unable: dict[str, str] = {}
    for saga_id in dict.fromkeys(saga_ids):
        with _problem_of(several=len(saga_ids) > 1) as problems:
            saga = session.call("get", saga_id)
            if _stands(session, command, saga):
                continue
            flow = session.runtime.host.service.prospect(saga["transaction_id"], Command(command))
            meant.append(Meant(saga, session.run(flow)))
        for problem in problems:
            unable[saga_id] = problem
            hint(f"not among them: {_named(session, saga_id, problem)}")
    if meant and not agreed(question(command, meant), verb=command):
        hint("nothing was changed")
        raise typer.Exit(REFUSED)
    return unable


def question(command: str, meant: Sequence[Meant]) -> str:
    """What a person is asked: which sagas, in which states, and what becomes of them."""
    lines = [_line(each) for each in meant]
    if len(lines) > NAMED:
        lines[NAMED:] = [f"  and {len(lines) - NAMED} more"]
    states = Counter(str(each.saga["state"]) for each in meant)
    if len(meant) == 1:
        count = "this saga"
    else:
        count = f"{len(meant)} sagas ({', '.join(f'{n} {state}' for state, n in states.items())})"
    will = WILL[command] if len(meant) > 1 else WILL[command].replace("They end", "It ends")
    return "\n".join([*lines, will, f"{command} {count}?"])


def _line(meant: Meant) -> str:
    saga = meant.saga
    caution = f"\n    {meant.caution}" if meant.caution else ""
    return f"  {saga['transaction_id']}  {saga['workflow']}, {saga['state']}{caution}"


def _steer(
    session: Session,
    command: str,
    saga_ids: Sequence[str],
    how: ActionOptions,
    *,
    unable: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Ask it of each, and tell what each is then; of several, which could not be asked.

    ``unable``: of which it is known, and told, that they cannot be.
    """
    wanted = list(dict.fromkeys(saga_ids))
    failed = 0
    for saga_id in wanted:
        problems = [unable[saga_id]] if saga_id in unable else []
        if not problems:
            with _problem_of(several=len(wanted) > 1) as problems:
                _order(session, command, saga_id, how)
        for problem in problems:
            failed += 1
            if how.as_json:
                emit(_unsteered(session, saga_id, problem))
            elif saga_id not in unable:
                hint(_named(session, saga_id, problem))
    if failed and not how.as_json:
        hint(f"{failed} of {len(wanted)} could not be asked to {command}")
    raise typer.Exit(REFUSED if failed else OK)


def _order(session: Session, command: str, saga_id: str, how: ActionOptions) -> None:
    """Ask it of one saga, and tell what the saga is then, or whose order it follows already."""
    if command == "retry":
        settle_one(session, command, saga_id, "", by=how.by, reason=how.reason, as_json=how.as_json)
        return
    told = ""
    if command in DONE_ALREADY and not how.as_json:
        told = _stands(session, command, session.call("get", saga_id))
    saga = session.call(command, saga_id, by=how.by, reason=how.reason)
    if how.as_json:
        emit(saga)
    else:
        say(told or f"saga {saga['transaction_id']} is {saga['state']}")


def _stands(session: Session, command: str, saga: Mapping[str, Any]) -> str:
    """Whose order has done already what a pause or a cancel asks; empty: nobody's."""
    if command not in DONE_ALREADY:
        return ""
    saga_id = saga["transaction_id"]
    people = session.run(session.runtime.host.service.standing(saga_id, Command(command)))
    if people is None:
        return ""
    by = f" by {people.asked.by}" if people.asked and people.asked.by else ""
    why = f" ({people.asked.reason})" if people.asked and people.asked.reason else ""
    now = "" if saga["state"] in DONE_ALREADY.values() else f" and is {saga['state']}"
    return f"saga {saga_id} was already {DONE_ALREADY[command]}{by}{why}{now}; nothing was changed"


def _unsteered(session: Session, saga_id: str, problem: str) -> dict[str, Any]:
    """A saga that could not be steered, by its whole id and with its state as far as known."""
    row = {"transaction_id": session.found.get(saga_id, saga_id), "state": None}
    with _problem_of(several=True):
        saga = session.call("get", saga_id)
        row = {name: saga[name] for name in row}
    return {**row, "problem": problem}


def _named(session: Session, saga_id: str, problem: str) -> str:
    """The problem after the id of its saga, where it does not name that itself."""
    ids = (saga_id, session.found.get(saga_id, saga_id))
    return problem if any(each in problem for each in ids) else f"{saga_id}: {problem}"


@contextmanager
def _problem_of(*, several: bool) -> Iterator[list[str]]:
    """Where several sagas are meant, take why one of them cannot be steered into the list.

    A server that does not answer concerns them all.
    """
    from multiagents.core.exceptions import MultiAgentsError
    from multiagents.storage.client import UNREACHABLE, StoreError

    problems: list[str] = []
    try:
        yield problems
    except UNREACHABLE:
        raise
    except (MultiAgentsError, StoreError) as error:
        if not several:
            raise
        problems.append(explained(error))
