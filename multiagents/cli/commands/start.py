"""How is a saga started from a shell?"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from multiagents.cli.commands.watch import exit_code, going_on, last_of, live, show_saga, snapshots
from multiagents.cli.errors import CommandError
from multiagents.cli.output import Json, emit, hint, say
from multiagents.cli.render import has_ended
from multiagents.cli.session import Session, connect, environment, load_code


class Conflict(StrEnum):
    """The answer to a start whose key belongs to a saga with another input."""

    REFUSE = "refuse"
    FIRST = "first"


WorkflowName = Annotated[
    str,
    typer.Argument(
        metavar="WORKFLOW", help="The name of a published workflow, or a JSON or YAML file."
    ),
]
Input = Annotated[
    str,
    typer.Option(
        "--input", "-i", metavar="JSON|@FILE|-", help="The input of the saga, a JSON object."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        "--key",
        metavar="KEY",
        help="A second start with this key starts no second saga.",
    ),
]
OnConflict = Annotated[
    Conflict,
    typer.Option(
        "--on-conflict", help="If the key has a saga with another input: refuse, or give that saga."
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="A tag for `list --tag`; repeatable."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end and print the saga.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.0, metavar="S", help="The longest --wait, in seconds."),
]


def start(
    workflow: WorkflowName,
    input_text: Input = "{}",
    idempotency_key: Key = None,
    on_conflict: OnConflict = Conflict.REFUSE,
    tag: Tags = None,
    wait: Wait = False,
    timeout: Timeout = None,
    json_output: Json = False,
) -> None:
    """Start a saga and print its id. The saga is durable then.

    With --wait the id goes to stderr, a terminal shows the steps as `watch` does, and the saga is
    printed at its end. The exit code is 1 if it did not complete. Ctrl-C ends only the waiting.
    """
    given = read_input(input_text)
    if timeout is not None and not wait:
        raise CommandError("--timeout is for --wait; add --wait, or leave it out")
    settings = environment()
    load_code(settings)
    definition = read_workflow(workflow)
    session = connect(settings)
    saga_id = session.call(
        "start",
        definition,
        given,
        idempotency_key=idempotency_key,
        on_conflict=on_conflict.value,
        tags=tag or (),
    )
    unable = session.run(session.runtime.host.service.stranded(saga_id))
    if unable:
        hint(unable)
    if wait:
        _wait(session, saga_id, timeout_s=timeout, as_json=json_output, told=unable)
    elif json_output:
        emit(session.call("get", saga_id))
    else:
        say(saga_id)
        if sys.stdout.isatty():
            hint(f"follow it with\n  multiagents watch {saga_id}")


def _wait(
    session: Session, saga_id: str, *, timeout_s: float | None, as_json: bool, told: str
) -> None:
    hint(f"saga {saga_id}")
    with going_on(snapshots(session, saga_id, timeout_s=timeout_s, told=told)) as found:
        shows = sys.stdout.isatty() and not as_json
        saga = live(session, found, leaves=False) if shows else last_of(found)
    show_saga(session, saga, as_json=as_json)
    if not has_ended(saga):
        raise CommandError(
            f"saga {saga_id} is still {saga['state']} after {timeout_s:g} s; {_then(session, saga)}"
        )
    raise typer.Exit(exit_code(saga))


def _then(session: Session, saga: dict[str, Any]) -> str:
    """What happens to the saga after the waiting has ended."""
    from multiagents.operations.projection import person_awaited

    saga_id = saga["transaction_id"]
    if person_awaited(saga):
        return f"it waits for an operator: see `multiagents explain {saga_id}`"
    stranded = session.run(session.runtime.host.service.stranded(saga_id))
    if stranded:
        return f"{stranded}; see `multiagents explain {saga_id}`"
    return f"it goes on: follow it with `multiagents watch {saga_id}`"


def read_input(text: str) -> dict[str, Any]:
    """The object that ``JSON``, ``@FILE`` or ``-`` (stdin) holds.  Raises CommandError."""
    place, content = _content(text)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{place} is not JSON: {error}; {_expected(text)}") from error
    if not isinstance(value, dict):
        raise CommandError(
            f'{place} is {_kind(value)}; expected a JSON object such as \'{{"sku": "A1"}}\''
        )
    return value


def _expected(text: str) -> str:
    if text.lower().endswith((".json", ".txt")) or _is_file(text):
        return f"a file is named after @: --input @{text}"
    return 'expected an object: \'{"sku": "A1"}\''


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # not a valid file name
        return False


def _content(text: str) -> tuple[str, str]:
    if text == "-":
        return "the input on stdin", sys.stdin.read()
    if not text.startswith("@"):
        return "--input", text
    try:
        return text[1:], Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read the input file {text[1:]!r}: {error}") from error


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def read_workflow(name: str) -> Any:
    """The workflow of a definition file, or the name itself."""
    from multiagents.workflows.files import SUFFIXES, load_file

    if name.lower().endswith(SUFFIXES):
        return load_file(name)
    return name
