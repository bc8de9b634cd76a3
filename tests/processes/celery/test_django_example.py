"""Does a Django project have sagas of its tasks, with its own app, broker and database?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting.start_log import NO_WORKFLOW
from tests.support.processes import ROOT, Worker

pytestmark = pytest.mark.processes

PROJECT = ROOT / "examples" / "django_shop"
DATABASE = 12
PROBE = "tests.support.django_probe"
HEAD = """
import json, threading, time
import django
django.setup()
from django.db import transaction
from django.test import Client
from multiagents import UnknownSaga
from orders.models import Order
from orders.services import place_order
from payments.models import Payment
from proj.celery import sagas, start_saga

def ended(order):
    start_saga.AsyncResult(str(order)).get(timeout=30, propagate=False)
    row = Order.objects.get(pk=order)
    return [sagas.get(str(order))["state"], row.state, Payment.objects.filter(order=row).count()]

def saga_of(order):
    try:
        return sagas.get(str(order.pk))["state"]
    except UnknownSaga:
        return None

def post(**given):
    return Client().post("/orders/", given, content_type="application/json")

said = {}
"""
BUYING = """
order = post(sku="A1", amount="12.50").json()["id"]
said["paid"] = ended(order)
said["shown"] = Client().get(f"/orders/{order}/").json()
said["over the limit"] = ended(post(sku="A1", amount="5000").json()["id"])
said["refused clean"] = ended(post(sku="C3", amount="1").json()["id"])
with transaction.atomic():
    order = place_order("A1", "1")
    before = saga_of(order)
said["before and after the commit"] = [before, ended(order.pk)]
try:
    with transaction.atomic():
        lost = place_order("A1", "1")
        raise ZeroDivisionError
except ZeroDivisionError:
    said["rolled back"] = [saga_of(lost), Order.objects.filter(pk=lost.pk).exists()]
post(sku="A1", amount="1")
sold_out = post(sku="A1", amount="1")
said["sold out"] = [sold_out.status_code, Order.objects.filter(sku="A1").count()]
from django.core.management import call_command
order = Order.objects.create(sku="B2", amount=1)
for _ in range(2):
    call_command("start_missing")
said["missing"] = ended(order.pk)
order, counts = Order.objects.create(sku="B2", amount=1), []
for _ in range(2):
    with transaction.atomic():
        start_saga.delay_on_commit("purchase", {"order_id": order.pk}, f"key of {order.pk}")
        counts.append(len(sagas.list()))
counts.append(len(sagas.list()))
said["of one key"] = [count - counts[0] for count in counts]
print(json.dumps(said))
"""
PROBING = """
for _ in range(2):
    result = start_saga.delay("probe", {})
    result.get(timeout=30)
    steps = sagas.get(result.id)["step_results"]
    said.setdefault("seen", []).append(steps)
print(json.dumps(said))
"""


class Shop:
    """The example's project on a database and a Redis of its own; the variable is not set."""

    def __init__(self, folder: Path, url: str) -> None:
        foreign = ("MULTIAGENTS_", "CELERY_", "DJANGO_")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
        self.env = {
            **kept,
            "PYTHONPATH": f"{PROJECT}{os.pathsep}{ROOT}",
            "DJANGO_SETTINGS_MODULE": "proj.settings",
            "REDIS_URL": url,
            "SHOP_DATABASE": str(folder / "shop.sqlite3"),
        }

    def run(self, *command: str, **more: str) -> str:
        """What a Python process in the project's folder prints, errors included."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=PROJECT,
            env={**self.env, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def client(self, body: str) -> dict[str, Any]:
        """What a web process of the project finds."""
        said: dict[str, Any] = json.loads(self.run("-c", HEAD + body).splitlines()[-1])
        return said


class ShopWorker(Worker):
    """``celery -A proj worker``, which learns of its Redis from the project alone."""

    def __init__(self, shop: Shop) -> None:
        super().__init__("", "-P", "solo", "-I", PROBE, app="proj")
        self._env = shop.env


@pytest.fixture(scope="module")
def shop(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The project, with its tables."""
    made = Shop(tmp_path_factory.mktemp("shop"), f"{server.url.removesuffix('/0')}/{DATABASE}")
    made.run("manage.py", "migrate", "-v", "0")
    return made


@pytest.fixture(scope="module")
def running(shop: Shop) -> Iterator[ShopWorker]:
    """Its worker."""
    with ShopWorker(shop) as worker:
        yield worker.wait_ready()


@pytest.fixture(scope="module")
def bought(shop: Shop, running: ShopWorker) -> dict[str, Any]:
    """What came of some orders."""
    return shop.client(BUYING)


def test_an_order_is_paid_and_confirmed_by_unchanged_tasks(bought: dict[str, Any]) -> None:
    """The view has only the workflow's name; the saga's id is the order's."""
    assert bought["paid"] == ["completed", "confirmed", 1]
    assert bought["shown"] == {"order": "confirmed", "saga": "completed", "step": None}


def test_an_order_over_the_limit_is_undone_by_unchanged_tasks(bought: dict[str, Any]) -> None:
    """What its task raises is the reason; to undo a payment that was never made changes nothing."""
    assert bought["over the limit"] == ["compensated", "cancelled", 0]
    assert bought["refused clean"] == ["compensated", "cancelled", 0]


def test_a_saga_begins_when_its_row_is_committed(bought: dict[str, Any]) -> None:
    """Inside the transaction there is none."""
    assert bought["before and after the commit"] == [None, ["completed", "confirmed", 1]]


def test_a_row_that_is_rolled_back_has_no_saga(bought: dict[str, Any]) -> None:
    """Whether its transaction fails around the service or in it."""
    assert bought["rolled back"] == [None, False]
    assert bought["sold out"] == [409, 4]


def test_a_web_process_may_have_the_workflow_or_its_name(bought: dict[str, Any]) -> None:
    """A saga of an id, or of a key, is started once, however often it is asked for."""
    assert bought["missing"] == ["completed", "confirmed", 1]
    assert bought["of one key"] == [0, 1, 1]


def test_the_projects_command_line_lists_its_sagas(shop: Shop, bought: dict[str, Any]) -> None:
    """``celery -A proj saga list`` finds the project's Redis as the worker does."""
    listed = shop.run("-m", "celery", "-A", "proj", "saga", "list", "--json", COLUMNS="200")
    rows = [json.loads(line) for line in listed.splitlines() if line.startswith("{")]
    assert {row["workflow"] for row in rows} == {"purchase"}
    assert {"completed", "compensated"} <= {row["state"] for row in rows}


def test_every_step_begins_with_a_fresh_database_connection(
    shop: Shop, running: ShopWorker
) -> None:
    """As each task of Celery's does under Django; a continued step, too.

    An async step's queries run in a thread that Celery does not know: there the connection stays
    open from saga to saga unless the step closes what is old.
    """
    first, second = shop.client(PROBING)["seen"]
    closed = {"was_open": False}
    assert (first["first"], first["second"]) == (closed, closed)
    assert (second["first"], second["second"]) == (closed, closed)
    assert first["third"] == {"first": False, "kept": True, "afresh": False}
    assert second["third"] == {"first": True, "kept": True, "afresh": False}
    assert not re.search(r"Task probe_continued\[.*\] received", running.log)  # no message


def test_a_worker_says_where_its_sagas_are(running: ShopWorker) -> None:
    """Its log names the server and the setting that chose it, at its start."""
    assert "named_by=\"broker_url of app 'proj'\"" in running.log


def test_a_worker_names_the_workflows_that_it_has_found(running: ShopWorker) -> None:
    """The log also names the modules; a `sagas.py` elsewhere is not among them."""
    (line,) = [each for each in running.log.splitlines() if "workflows are registered" in each]
    assert "purchase" in line
    assert "orders.sagas, payments.sagas" in line
    assert NO_WORKFLOW not in running.log


def test_the_projects_own_tests_need_no_server(shop: Shop) -> None:
    """CELERY_TASK_ALWAYS_EAGER: each view's saga runs to its end in the test."""
    command = ("manage.py", "test", "--settings=proj.test_settings")
    assert "Ran 6 tests" in shop.run(*command, REDIS_URL="redis://127.0.0.1:1/0")
