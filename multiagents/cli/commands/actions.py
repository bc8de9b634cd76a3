"""How does an operator act on sagas from a shell?

The operator and the reason go into each saga's log.  Before an action that cannot be reverted, a
terminal asks for confirmation; a script is not asked.  An action that the state of a saga does not
allow is an error that names the allowed ones.
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
from multiagents.core.states import Action

Reason = Annotated[str, typer.Option("--reason", help="The reason; kept in the saga's history.")]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="NAME",
        help="The operator; by default MULTIAGENTS_OPERATOR, or your user name.",
    ),
]
StepName = Annotated[
    str,
    typer.Argument(metavar="STEP", help="Only this step; without it all dead letters of the saga."),
]
StepOrSagas = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STEP|ID",
        help="Only this step, or the whole ids of more sagas.",
    ),
]
SagaIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID", help="Saga ids, their unique beginnings, or Celery ids of their starts."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]

WILL = {
    "cancel": "No new step begins, and finished steps are undone, last step first.",
    "rollback": "All steps are undone, last step first.",
    "terminate": "They end as failed, and no step is undone.",
}
"""The effect of actions that cannot be reverted, for several sagas."""
DONE_ALREADY = {"pause": "paused", "cancel": "cancelled"}
"""Actions that change nothing the second time, and their participles."""
NAMED = 10
"""How many sagas a question names."""


class ActionOptions(NamedTuple):
    """The operator, the reason, and the form of the answer."""

    by: str | None
    reason: str
    as_json: bool


def _steering(command: str, help_text: str) -> Callable[..., None]:
    """The command of an action that can be reverted."""

    def ask(
        saga_ids: SagaIds, reason: Reason = "", by: By = None, json_output: Json = False
    ) -> None:
        _steer(connect(), command, saga_ids, ActionOptions(by, reason, json_output))

    ask.__doc__ = help_text
    return ask


def _asking(command: str, help_text: str) -> Callable[..., None]:
    """The command of an action that cannot."""

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

    ask.__doc__ = f"{help_text}\n\nA terminal asks for confirmation; a script does not."
    return ask


pause = _steering("pause", "Start no new steps of these sagas; running ones end.")
resume = _steering("resume", "Continue paused sagas.")
cancel = _asking("cancel", "Stop sagas and undo their finished steps.")
rollback = _asking("rollback", "Undo completed sagas, last step first.")
terminate = _asking("terminate", "End sagas as failed, and undo nothing.")


def retry(
    saga_id: SagaId,
    words: StepOrSagas = None,
    reason: Reason = "",
    by: By = None,
    json_output: Json = False,
) -> None:
    """Retry the dead letters of sagas: their parked steps and undos.

    ID STEP retries one step of a saga. ID ID ... retries several sagas, by their whole ids.
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
    """Remove a damaged saga from all lists; nothing is undone."""
    removed = connect().call("remove", saga_id, by=by, reason=reason)
    if json_output:
        emit(removed)
    else:
        say(f"saga {saga_id} is removed: {'; '.join(removed['problems'])}")


class Meant(NamedTuple):
    """A saga that a question names."""

    saga: Mapping[str, Any]
    caution: str = ""
    """A warning about it; "" without one."""


def _asked_first(session: Session, command: str, saga_ids: Sequence[str]) -> dict[str, str]:
    """Ask for confirmation; the sagas that do not allow the action, by id with the reason.

    Those are printed first.  For a single saga the reason is raised as an error instead.
    """
    meant: list[Meant] = []
    unable: dict[str, str] = {}
    for saga_id in dict.fromkeys(saga_ids):
        with _problem_of(several=len(saga_ids) > 1) as problems:
            saga = session.call("get", saga_id)
            if _stands(session, command, saga):
                continue
            flow = session.runtime.host.service.prospect(saga["transaction_id"], Action(command))
            meant.append(Meant(saga, session.run(flow)))
        for problem in problems:
            unable[saga_id] = problem
            hint(f"left out: {_named(session, saga_id, problem)}")
    if meant and not agreed(question(command, meant), verb=command):
        hint("nothing was changed")
        raise typer.Exit(REFUSED)
    return unable


def question(command: str, meant: Sequence[Meant]) -> str:
    """The question: the sagas, their states, and the effect."""
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
    """Do the action on each saga, and print its new state or why it was refused.

    ``unable``: sagas whose refusal is printed already.
    """
    wanted = list(dict.fromkeys(saga_ids))
    failed = 0
    for saga_id in wanted:
        problems = [unable[saga_id]] if saga_id in unable else []
        if not problems:
            with _problem_of(several=len(wanted) > 1) as problems:
                _act(session, command, saga_id, how)
        for problem in problems:
            failed += 1
            if how.as_json:
                emit(_unsteered(session, saga_id, problem))
            elif saga_id not in unable:
                hint(_named(session, saga_id, problem))
    if failed and not how.as_json:
        hint(f"{command}: {failed} of {len(wanted)} sagas were refused")
    raise typer.Exit(REFUSED if failed else OK)


def _act(session: Session, command: str, saga_id: str, how: ActionOptions) -> None:
    """Do the action on one saga, and print its state or the operator who has done it before."""
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
    """The operator who has done this pause or cancel already, as a message; "" if none has."""
    if command not in DONE_ALREADY:
        return ""
    saga_id = saga["transaction_id"]
    people = session.run(session.runtime.host.service.standing(saga_id, Action(command)))
    if people is None:
        return ""
    by = f" by {people.asked.by}" if people.asked and people.asked.by else ""
    why = f" ({people.asked.reason})" if people.asked and people.asked.reason else ""
    now = "" if saga["state"] in DONE_ALREADY.values() else f" and is {saga['state']}"
    return f"saga {saga_id} was already {DONE_ALREADY[command]}{by}{why}{now}; nothing was changed"


def _unsteered(session: Session, saga_id: str, problem: str) -> dict[str, Any]:
    """The JSON row of a refused action: whole id, state if known, and the problem."""
    row = {"transaction_id": session.found.get(saga_id, saga_id), "state": None}
    with _problem_of(several=True):
        saga = session.call("get", saga_id)
        row = {name: saga[name] for name in row}
    return {**row, "problem": problem}


def _named(session: Session, saga_id: str, problem: str) -> str:
    """The problem, with the id of its saga before it unless it names the id itself."""
    ids = (saga_id, session.found.get(saga_id, saga_id))
    return problem if any(each in problem for each in ids) else f"{saga_id}: {problem}"


@contextmanager
def _problem_of(*, several: bool) -> Iterator[list[str]]:
    """With several sagas, collect the refusal of one of them instead of raising it.

    A server that does not answer is raised: it concerns all of them.
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
