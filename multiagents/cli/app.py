"""Which commands exist, and how are their errors reported?

`COMMANDS` is the one table of commands.  Command modules import nothing slow at the top: `--help`
and `--version` load neither Celery nor redis.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiagents import __version__
from multiagents.cli.command import CliCommand, Group
from multiagents.cli.commands import (
    actions,
    attention,
    dead_letters,
    explain,
    query,
    start,
    watch,
    workers,
)
from multiagents.cli.commands import workflows as workflow_commands
from multiagents.cli.demo.command import demo
from multiagents.cli.dev.command import dev
from multiagents.cli.doctor.command import doctor
from multiagents.cli.errors import INTERRUPTED, OK, WRONG_USE, explained, with_mistakes
from multiagents.cli.invocation import Called, as_called, called, calling, program_for
from multiagents.cli.output import hint, say, wants_colours
from multiagents.cli.session import close_sessions, load_app
from multiagents.core.near import did_you_mean, nearest

if TYPE_CHECKING:
    from celery import Celery

Row = tuple[str, Callable[..., None] | str, str]
"""Name, function (or the place of one in a higher room), example."""
COMMANDS: tuple[Row, ...] = (
    ("dev", dev, "MULTIAGENTS_IMPORTS=shop.workers multiagents dev"),
    ("demo", demo, "multiagents demo"),
    ("start", start.start, 'multiagents start order --input \'{"sku": "A1"}\' --wait'),
    ("list", query.list_, "multiagents list --state running --limit 10"),
    ("show", query.show, "multiagents show ID"),
    ("watch", watch.watch, "multiagents watch ID"),
    ("history", query.history, "multiagents history ID --json"),
    ("explain", explain.explain, "multiagents explain ID"),
    ("attention", attention.attention, "multiagents attention"),
    ("pause", actions.pause, 'multiagents pause ID --reason "bank is down"'),
    ("resume", actions.resume, "multiagents resume ID"),
    ("cancel", actions.cancel, 'multiagents cancel ID --reason "customer called"'),
    ("rollback", actions.rollback, 'multiagents rollback ID --reason "wrong price"'),
    ("terminate", actions.terminate, 'multiagents terminate ID --reason "undone by hand"'),
    ("retry", actions.retry, "multiagents retry ID STEP"),
    ("remove", actions.remove, 'multiagents remove ID --reason "undone by hand"'),
    ("workers", workers.workers, "multiagents workers"),
    ("doctor", doctor, "multiagents doctor"),
    ("bench", "multiagents.lab.bench.command:bench", "multiagents bench --only chain10,fan10"),
    ("chaos", "multiagents.lab.chaos.command:chaos", "multiagents chaos --seconds 30 --kills 3"),
)
WORKFLOW_COMMANDS: tuple[Row, ...] = (
    ("list", workflow_commands.list_, "multiagents workflows list"),
    ("show", workflow_commands.show, "multiagents workflows show order"),
    ("validate", workflow_commands.validate, "multiagents workflows validate order.yaml"),
)
DEAD_LETTER_COMMANDS: tuple[Row, ...] = (
    ("list", dead_letters.list_, "multiagents dead-letters list --workflow order"),
    ("show", dead_letters.show, "multiagents dead-letters show ID"),
    ("retry", dead_letters.retry, "multiagents dead-letters retry --workflow order --all"),
    ("skip", dead_letters.skip, 'multiagents dead-letters skip ID STEP --reason "no mail needed"'),
    ("resolve", dead_letters.resolve, 'multiagents dead-letters resolve ID --reason "refunded"'),
    ("reindex", dead_letters.reindex, "multiagents dead-letters reindex"),
)
GROUPS = (
    ("dead-letters", DEAD_LETTER_COMMANDS, "List and settle parked steps and undos."),
    ("workflows", WORKFLOW_COMMANDS, "List, show and check workflow definitions."),
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"multiagents {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit."),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks; accepted anywhere in the line.")
]


def _root(version: Version = False, debug: Debug = False) -> None:
    """Durable sagas on Celery and Redis: start, watch and steer them."""


def make_app() -> typer.Typer:
    """The typer app with the commands that the called program offers."""
    app = _typer()
    app.callback()(_root)
    _add(app, [row for row in COMMANDS if called().offers(row[0])])
    for name, commands, help_text in GROUPS:
        group = _typer()
        _add(group, commands)
        app.add_typer(group, name=name, help=help_text)
    return app


def _typer() -> typer.Typer:
    return typer.Typer(
        cls=Group, add_completion=False, no_args_is_help=True, rich_markup_mode="rich"
    )


def function_of(place: Callable[..., None] | str) -> Callable[..., None]:
    """The function of a row.  A function of a higher room is imported here, when it is needed."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    function: Callable[..., None] = getattr(import_module(module), name)
    return function


def _add(app: typer.Typer, commands: Sequence[Row]) -> None:
    for name, place, example in commands:
        function = function_of(place)
        epilog = f"Example: {as_called(example)}"
        text = _paragraphs(function.__doc__)
        app.command(name, cls=CliCommand, epilog=epilog, help=text)(function)


def _paragraphs(text: str | None) -> str:
    """A docstring with each paragraph on one line; the help wraps it to the terminal."""
    return "\n\n".join(" ".join(each.split()) for each in (text or "").split("\n\n"))


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors become one line on stderr."""
    with calling(Called(commands=names())):
        return _run(list(sys.argv[1:] if argv is None else argv))


def run_for(app: Celery, name: str, words: Sequence[str]) -> int:
    """Like `run`, for the sagas of a team's app.  ``name``: as after ``celery -A``; empty: unknown.

    Messages do not repeat Celery's own options, because these may be secret.
    """
    from multiagents.engine import launches

    with calling(Called(program_for(name), app, names())), launches.called_for(name):
        return _run(list(words), name)


def names() -> list[str]:
    """The names of all commands and groups."""
    return [*(command for command, _, _ in COMMANDS), *(group for group, _, _ in GROUPS)]


def _run(words: list[str], app_name: str = "") -> int:
    try:
        return _answer(words, app_name)
    except KeyboardInterrupt:  # also while it gets ready, or tells of an error
        return INTERRUPTED


def _answer(words: list[str], app_name: str) -> int:
    debug = "--debug" in words
    _log_to_stderr(debug)
    if "--help" in words and not wants_colours():
        from typer import rich_utils

        rich_utils.COLOR_SYSTEM = None
    command = typer.main.get_command(make_app())
    try:
        if "--help" not in words and (app := called().app) is not None:
            load_app(app, app_name)
        code = command.main(
            [word for word in words if word != "--debug"],
            prog_name=called().program,
            standalone_mode=False,
        )
    except typer.Abort:
        return INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:  # noqa: BLE001 - the edge to the user: every error is a line
        if debug:
            traceback.print_exception(error)
        return _report(error)
    finally:
        close_sessions()
    return code if isinstance(code, int) else OK


def _report(error: Exception) -> int:
    """Print the error on stderr and return the exit code."""
    usage = getattr(error, "format_message", None)
    if usage is None:
        hint(f"error: {with_mistakes(explained(error), error)}")
    elif error.__class__.__name__ == "NoArgsIsHelpError":
        print(usage(), file=sys.stderr)
    else:
        text = " ".join(str(usage()).split()).replace("Value error, ", "")
        hint(f"error: {text}{_elsewhere(text)}{_see(error)}")
    return WRONG_USE


def _elsewhere(text: str) -> str:
    """The right place of a command, or the word that was probably meant; "" if neither is known."""
    if re.match(r"Got unexpected extra argument.*\{", text):
        return " The input of a saga stands after --input."
    if (choice := re.search(r"'([^']*)' is not one of (.*)", text)) is not None:
        meant = nearest(choice[1], re.findall(r"'([^']*)'", choice[2]))
        return f" {did_you_mean(meant)}".rstrip()
    name = re.match(r"No such command '([\w-]+)'", text)
    for group, commands, _ in GROUPS:
        if name and name[1] in [command for command, _, _ in commands]:
            return f" Did you mean `multiagents {group} {name[1]}`?"
    return ""


def _see(error: Any) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    return f" (see `{path} --help`)" if path else ""


def _log_to_stderr(debug: bool) -> None:
    """Send the engine's warnings to stderr: stdout holds only the answer."""
    import logging

    import structlog

    from multiagents.core.logs import tame

    tame()
    level = logging.DEBUG if debug else logging.WARNING
    structlog.configure(
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
