"""What does `celery -A proj saga` do?

The same as `multiagents`, for the sagas of a team's own Celery app.  Celery loads this module at
every start of its own command line, so only click is imported at the top.
"""

from __future__ import annotations

import sys

import click

from multiagents.core.interrupts import ending_at_once


@click.command(
    "saga",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def saga(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Sagas of this app: start, list, watch, explain, steer them."""
    with ending_at_once():
        from multiagents.cli.app import run_for
        from multiagents.engine.launches import app_option

    sys.exit(run_for(ctx.obj.app, app_option(sys.argv), words))
