"""What does `celery -A proj saga` do?

Lists and shows the sagas of a team's own Celery app.  Celery loads this module at every start of
its command line, so nothing but click is imported at the top.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

if TYPE_CHECKING:
    from multiagents.cli.session import Session


@click.group("saga")
def saga() -> None:
    """Sagas of this app: list them, show one.

    The full command line is `multiagents`.
    """


@saga.command("list", cls=CeleryCommand)
@click.option("--state", default=None, help="Only sagas in this state.")
@click.option("--workflow", default=None, help="Only sagas of this workflow.")
@click.option("--tag", default=None, help="Only sagas with this tag.")
@click.option("--limit", default=50, type=click.IntRange(1, 10_000), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one saga a line.")
@click.pass_context
def list_(ctx: click.Context, /, **options: Any) -> None:
    """List sagas, newest first; for example: celery -A proj saga list --state running."""
    from multiagents.cli.look import print_list

    _told(lambda: print_list(_session(ctx), **options))


@saga.command("show", cls=CeleryCommand)
@click.argument("saga_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, saga_id: str, as_json: bool) -> None:
    """Show a saga; for example: celery -A proj saga show ID."""
    from multiagents.cli.look import print_saga

    _told(lambda: print_saga(_session(ctx), saga_id, as_json=as_json))


def _session(ctx: click.Context) -> Session:
    from multiagents.bootstrap import attach
    from multiagents.cli.session import Session, probe

    runtime = attach(ctx.obj.app)
    probe(runtime)
    return Session(runtime)


def _told(action: Callable[[], None]) -> None:
    """Do it; an error becomes one line and exit code 2, as in `multiagents`."""
    from multiagents.cli.errors import WRONG_USE, explained
    from multiagents.cli.output import hint

    try:
        action()
    except Exception as error:  # noqa: BLE001 - the edge to the user: every error is a line
        hint(f"error: {explained(error)}")
        sys.exit(WRONG_USE)
