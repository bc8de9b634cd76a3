"""What does a saga do for its user?  `multiagents demo`.

The demo runs one order twice, on an embedded server with a real worker process.  The first run
succeeds.  In the second the shipping fails after the payment, and the saga undoes its steps.  The
server is always the demo's own: on a server in use, its worker would take other programs' messages.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from multiagents.cli.commands.watch import last_snapshot
from multiagents.cli.errors import OK, SAGA_FAILED, CommandError
from multiagents.cli.model import STUB, model_environment
from multiagents.cli.output import Json, cell, console, emit, say, table
from multiagents.cli.render import has_ended, history_table
from multiagents.cli.session import Session, connect, environment
from multiagents.cli.stop_signals import stopped_by_signals
from multiagents.cli.worker_process import WorkerProcess, isolate

ORDER = {"customer": "Ada", "sku": "A1", "quantity": 2}
ORDERS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("an order that works", ORDER, "completed"),
    (
        "an order whose payment is accepted and whose shipping fails",
        {**ORDER, "carrier": "on strike"},
        "compensated",
    ),
)
"""Title, input and expected outcome of each run."""
STOCK = {"A1": 10}
MONEY = {"customer": 10_000, "shop": 0}
ANSWERS = {"confirmation": "Dear Ada, your two A1 are on their way. Thank you!"}
"""The stub's answer; a real model writes its own."""
NEXT = """
next: save the README's shop.py ("One minute to the first saga"), and beside it
  MULTIAGENTS_IMPORTS=shop multiagents dev
then, in another terminal
  multiagents start order --input '{"sku": "A1"}' --wait
  multiagents list
  multiagents --help"""
TIMEOUT_S = 60.0
WORKFLOW = "demo.order"


def demo(json_output: Json = False) -> None:
    """Run an order that succeeds and one that is undone; needs no server.

    Prints both timelines, and the shop's stock and money before and after each.
    """
    with stopped_by_signals(), ExitStack() as stack:
        report = _run(stack, tell=not json_output)
    if json_output:
        emit(report)
    elif report["ok"]:
        say("\nThe second order left no trace: the saga undid each step that had run.")
        say(NEXT)
    raise typer.Exit(OK if report["ok"] else SAGA_FAILED)


def _run(stack: ExitStack, *, tell: bool) -> dict[str, Any]:
    from multiagents.cli.demo.store import Shop
    from multiagents.devserver.server import EmbeddedServer

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="multiagents-demo-")))
    shop = Shop(folder / "shop.sqlite")
    shop.open(stock=STOCK, money=MONEY)
    server = stack.enter_context(EmbeddedServer(folder / "server"))
    isolate(stack, server.url)
    settings = environment()
    model = model_environment(stack, settings, ANSWERS)
    if tell:
        say(f"The demo starts its own server and worker ({server.url}).")
        if model:
            say(f"Note: {STUB}.")
    worker = stack.enter_context(_worker(folder, model))
    session = connect(settings)
    worker.wait_ready(session)
    runs = [_order(session, shop, number, tell=tell) for number, _ in enumerate(ORDERS)]
    return {
        "ok": all(run["ok"] for run in runs),
        "stub_model": bool(model),
        "runs": runs,
    }


def _worker(folder: Path, model: Mapping[str, str]) -> WorkerProcess:
    """A worker in the demo's folder, so that it does not read the user's celeryconfig.py."""
    from multiagents.cli.demo.store import SHOP_VARIABLE

    env = {
        "MULTIAGENTS_IMPORTS": "multiagents.cli.demo.shop",
        SHOP_VARIABLE: str(folder / "shop.sqlite"),
        **model,
    }
    return WorkerProcess(
        "demo",
        env=env,
        options=("-l", "INFO", "-c", "2", "--without-gossip", "--without-mingle"),
        cwd=folder,
        log=folder / "worker.log",
    )


def _order(session: Session, shop: Any, number: int, *, tell: bool) -> dict[str, Any]:
    """Run one order, and return the report; ``tell`` prints it, too."""
    title, given, expected = ORDERS[number]
    before = shop.balance()
    saga_id = session.call("start", WORKFLOW, given)
    saga = last_snapshot(session, saga_id, timeout_s=TIMEOUT_S)
    if not has_ended(saga):
        raise CommandError(f"the demo's saga {saga_id} did not end within {TIMEOUT_S:g} s")
    events, after = session.call("history", saga_id), shop.balance()
    restored = expected == "completed" or before == after
    if tell:
        console().print(_headline(number, title, saga["state"]))
        console().print(history_table(events, workers=False))
        say("")
        console().print(balance_table(before, after))
    return {
        "title": title,
        "ok": saga["state"] == expected and restored,
        "saga": saga,
        "history": events,
        "shop_before": before,
        "shop_after": after,
    }


def _headline(number: int, title: str, state: str) -> Any:
    from rich.text import Text

    return Text.assemble(f"\n{number + 1}. {title}: ", cell(state), "\n")


def balance_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Any:
    """The shop's stock and money before and after."""
    rows = zip(_balance(before), _balance(after), strict=True)
    return table(
        ("THE SHOP", "BEFORE", "AFTER"), [(name, was, now) for (name, was), (_, now) in rows]
    )


def _balance(balance: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        *((f"stock of {sku}", f"{quantity}") for sku, quantity in balance["stock"].items()),
        *((f"{name}'s money", f"{c / 100:.2f} EUR") for name, c in balance["money"].items()),
        ("shipments", f"{balance['shipments']}"),
        ("mails", f"{balance['mails']}"),
    ]
