"""How does an operator settle dead letters from a shell?

One saga at a time (``ID [STEP]``), or many at once (``--all``, with filters).  Many are listed
first and need a confirmation; only the listed ones are settled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import typer

from multiagents.cli.commands.actions import By, Reason, StepName
from multiagents.cli.commands.query import check_not_empty, hint_if_unknown
from multiagents.cli.commands.watch import SagaId
from multiagents.cli.confirmation import REFUSED, agreed
from multiagents.cli.errors import OK, CommandError
from multiagents.cli.output import Json, console, emit, emit_each, hint, say, table
from multiagents.cli.render import error_text
from multiagents.cli.rows import Rows
from multiagents.cli.session import Session, connect, is_whole
from multiagents.cli.settlement_report import settle_one

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NEEDING_REASON = ("skip", "resolve")
DONE = {"retry": "retried", "skip": "skipped", "resolve": "resolved"}

OfWorkflow = Annotated[
    str | None,
    typer.Option("--workflow", metavar="NAME", help="Only dead letters of this workflow."),
]
OfStep = Annotated[str | None, typer.Option("--step", metavar="NAME", help="Only of this step.")]
OfKind = Annotated[
    str | None, typer.Option("--kind", metavar="step|undo", help="Only steps, or only undos.")
]
OfError = Annotated[
    str | None,
    typer.Option(
        "--error", metavar="TEXT", help="Only with this text in the error; case does not matter."
    ),
]
OlderThan = Annotated[
    str | None,
    typer.Option(
        "--older-than", metavar="AGE", help="Only parked for at least this long: 90s, 30m, 2h, 7d."
    ),
]
ListLimit = Annotated[int, typer.Option("--limit", min=1, help="The most to list.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="With --all: the most to settle, oldest first.")
]
NeededReason = Annotated[
    str,
    typer.Option("--reason", help="Required, except with --dry-run; kept in the saga's history."),
]
OneSaga = Annotated[
    str, typer.Argument(metavar="ID", help="The id of the saga; without it use --all.")
]
All = Annotated[bool, typer.Option("--all", help="Settle all dead letters that fit the filters.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --all: do not ask.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List the dead letters that are meant; change nothing.")
]


class Choice(NamedTuple):
    """The dead letters that a command means."""

    saga_id: str
    step: str
    every: bool
    filters: dict[str, Any]


class SettlingOptions(NamedTuple):
    """The operator, the reason and the mode."""

    by: str | None
    reason: str
    yes: bool
    dry_run: bool
    as_json: bool


def list_(
    workflow: OfWorkflow = None,
    step: OfStep = None,
    kind: OfKind = None,
    error: OfError = None,
    older_than: OlderThan = None,
    limit: ListLimit = 100,
    json_output: Json = False,
) -> None:
    """List the parked steps and undos of all sagas, oldest first."""
    filters = _filters(workflow, step, kind, error, older_than)
    session = connect()
    letters = session.call("dead_letters", **filters, limit=limit)
    _print(letters, as_json=json_output)
    if not letters:
        hint_if_unknown(session, workflow)


def show(saga_id: SagaId, step: StepName = "", json_output: Json = False) -> None:
    """Show the dead letters of a saga with error, input and the results of earlier steps."""
    letters = _of_saga(connect(), saga_id, step)
    if json_output:
        emit_each(letters)
        return
    for letter in letters:
        facts = [(name, _shown(name, value)) for name, value in letter.items() if name != "worker"]
        made = table(("", ""), facts)
        made.show_header = False
        console().print(made)


def _settling(decision: str, help_text: str) -> Callable[..., None]:
    """The command for one decision; all decisions have the same options."""

    def settle(
        saga_id: OneSaga = "",
        step: StepName = "",
        every: All = False,
        workflow: OfWorkflow = None,
        of_step: OfStep = None,
        kind: OfKind = None,
        error: OfError = None,
        older_than: OlderThan = None,
        limit: Limit = None,
        reason: Reason = "",
        by: By = None,
        yes: Yes = False,
        dry_run: DryRun = False,
        json_output: Json = False,
    ) -> None:
        filters = _filters(workflow, of_step, kind, error, older_than, limit)
        choice = Choice(saga_id, step, every, filters)
        how = SettlingOptions(by, reason, yes=yes, dry_run=dry_run, as_json=json_output)
        _settle(decision, choice, how)

    settle.__doc__ = help_text
    if decision in NEEDING_REASON:
        settle.__annotations__["reason"] = NeededReason
    return settle


retry = _settling("retry", "Retry dead letters, each with all its attempts.")
skip = _settling(
    "skip", "Continue without parked steps, and leave parked undos undone; needs a reason."
)
resolve = _settling("resolve", "Mark parked steps and undos as done by hand; needs a reason.")


def reindex(json_output: Json = False) -> None:
    """Compare the list with every saga and repair it; only needed after an upgrade."""
    told = connect().call("reindex_dead_letters")
    if json_output:
        emit(told)
    else:
        say(f"{told['sagas']} sagas checked: {told['added']} added, {told['removed']} removed")


# ---- what the commands have in common ----


def _filters(
    workflow: str | None,
    step: str | None,
    kind: str | None,
    error: str | None,
    older_than: str | None,
    limit: int | None = None,
) -> dict[str, Any]:
    given = {"workflow": workflow, "step": step, "kind": kind, "error": error, "limit": limit}
    for name in ("workflow", "step", "error"):
        check_not_empty(f"--{name}", given[name])
    found = {name: value for name, value in given.items() if value is not None}
    return found if older_than is None else {**found, "older_than_s": seconds(older_than)}


def seconds(text: str) -> float:
    """The seconds of ``90s``, ``30m``, ``2h`` or ``7d``.  Raises CommandError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise CommandError(
            f"--older-than is {text!r}; expected a time with its unit: 90s, 30m, 2h or 7d"
        )
    return float(match[1]) * UNITS_S[match[2]]


def _settle(decision: str, choice: Choice, how: SettlingOptions) -> None:
    _check(decision, choice, how)
    if choice.every:
        _settle_all(connect(), decision, choice, how)
    elif how.dry_run:
        _print(_of_saga(connect(), choice.saga_id, choice.step), as_json=how.as_json)
    else:
        saga = (choice.saga_id, choice.step)
        settle_one(connect(), decision, *saga, by=how.by, reason=how.reason, as_json=how.as_json)


def _check(decision: str, choice: Choice, how: SettlingOptions) -> None:
    if decision in NEEDING_REASON and not how.dry_run and not how.reason.strip():
        raise CommandError(f"{decision} needs a reason; add --reason TEXT")
    if choice.every and choice.saga_id:
        raise CommandError("give either ID [STEP] or --all with filters, not both")
    if not choice.every and not choice.saga_id:
        raise CommandError("which dead letters? Give ID [STEP], or --all with filters")
    if is_whole(choice.step):
        several = "multiagents retry ID ID ..., or " if decision == "retry" else ""
        raise CommandError(
            f"{choice.step!r} is a saga's id, and the second word is a STEP; for several sagas use"
            f" {several}--all with filters"
        )
    if not choice.every and choice.filters:
        raise CommandError("filters need --all; for one saga give ID [STEP]")


def _settle_all(session: Session, decision: str, choice: Choice, how: SettlingOptions) -> None:
    given = {"by": how.by, "reason": how.reason}
    wanted = {**choice.filters, **given}
    meant = session.call("settle_dead_letters", decision, **wanted, dry_run=True)
    if how.dry_run or not meant:
        _print(meant, as_json=how.as_json)
        if not meant:
            hint_if_unknown(session, choice.filters.get("workflow"))
        return
    if not how.as_json:
        _print(meant, as_json=False)
    if not how.yes and not _agreed(decision, len(meant)):
        hint("nothing was changed")
        raise typer.Exit(REFUSED)
    rows = session.call("settle_dead_letters", decision, **given, letters=meant)
    raise typer.Exit(_told(decision, rows, as_json=how.as_json))


def _agreed(decision: str, count: int) -> bool:
    letters = "1 dead letter" if count == 1 else f"{count} dead letters"
    return agreed(f"{decision} {letters}?", verb=decision)


def _told(decision: str, rows: list[dict[str, Any]], *, as_json: bool) -> int:
    failed = [row for row in rows if not row["done"]]
    if as_json:
        emit_each(rows)
    else:
        say(f"{len(rows) - len(failed)} {DONE[decision]}")
        for row in failed:
            saga_id = row["transaction_id"]
            which = row["step"] if saga_id in row["problem"] else f"{row['step']} of {saga_id}"
            hint(f"not {DONE[decision]}: {which}: {row['problem']}")
    return REFUSED if failed else OK


def _of_saga(session: Session, saga_id: str, step: str) -> list[dict[str, Any]]:
    given = {"step": step} if step else {}
    letters: list[dict[str, Any]] = session.call(
        "dead_letters", saga_id=saga_id, limit=None, **given
    )
    if not letters:
        what = f"step {step!r} of saga {saga_id}" if step else f"saga {saga_id}"
        raise CommandError(f"{what} has no dead letter; see `multiagents explain {saga_id}`")
    return letters


def _print(letters: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        emit_each(letters)
    elif letters:
        console().print(letters_table(letters))
    else:
        say("no dead letters")


def letters_table(letters: list[dict[str, Any]]) -> Any:
    """A line per dead letter."""
    from multiagents.operations.explain.saga import span

    return Rows(
        ("SAGA", "WORKFLOW", "KIND", "STEP", "ATTEMPTS", "AGE", "SAGA IS", "ERROR"),
        [
            (
                letter["transaction_id"],
                letter["workflow"],
                letter["kind"],
                letter["step"],
                letter["attempts"],
                span(letter["age_s"] * 1000),
                letter["state"],
                error_text(letter["error"]) if letter["error"] else None,
            )
            for letter in letters
        ],
    )


def _shown(name: str, value: Any) -> Any:
    if name == "late_successes":
        told = [
            f"attempt {each['attempt']} at {each['at']}, after it was given up"
            + (f" ({each['left']})" if "left" in each else "")
            for each in value
        ]
        return "; ".join(told) or None
    if name == "error" and value:
        return error_text(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
