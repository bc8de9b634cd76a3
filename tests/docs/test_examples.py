"""Do the examples do what they show, and leave nothing behind?

Each runs as a user runs it, in a process with its own worker and its own database of the session's
server. Only the examples that bring a server use another one.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from examples.ecommerce_order.shop import RefusedError, Shop
from multiagents.devserver.server import EmbeddedServer
from multiagents.testing.sandbox import STUB_NOTE
from tests.support.processes import ROOT, Worker, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.single]

DEADLINE_S = 90
_databases = itertools.count(1)


def environment(**own: str) -> dict[str, str]:
    """This process's environment, without variables that would redirect an example."""
    foreign = ("MULTIAGENTS_", "CELERY_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "PYTHONUNBUFFERED": "1", **own}


def run(*arguments: str, **own: str) -> str:
    """The output of a Python process; it must succeed and keep stderr empty."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(**own),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def url(server: EmbeddedServer) -> str:
    """An empty database of the session's server."""
    return f"{server.url.removesuffix('/0')}/{next(_databases)}"


def test_the_simple_workflow_shows_its_results_and_a_failure(url: str) -> None:
    """The output has three steps with their results, and a refused input."""
    lines = run("-m", "examples.simple_workflow", MULTIAGENTS_REDIS_URL=url).splitlines()
    assert lines == [
        "result: {'report': '3 readings, 21.0 degrees on average'}",
        "  check: succeeded, {'count': 3}",
        "  average: succeeded, {'average': 21.0}",
        "  report: succeeded, {'report': '3 readings, 21.0 degrees on average'}",
        "without readings: failed at 'check': there are no readings",
    ]


@pytest.fixture(scope="module")
def orders(server: EmbeddedServer) -> tuple[str, str]:
    """The output of the successful order, and of the one whose shipment fails."""
    database = f"{server.url.removesuffix('/0')}/{next(_databases)}"
    out = run("-m", "examples.ecommerce_order.main", MULTIAGENTS_REDIS_URL=database)
    note, good, bad, mails = out.split("\n\n")
    assert note == STUB_NOTE
    assert mails == "mails sent: ['Dear Ada, your two A1 are on their way. Thank you!']\n"
    return good, bad


@pytest.mark.xdist_group("orders")
class TestEcommerceOrder:
    def test_a_good_order_moves_stock_and_money_once(self, orders: tuple[str, str]) -> None:
        """Two pieces at 19.90 leave the shelf, the price is paid, parcel and mail go out."""
        title = orders[0].splitlines()[0]
        assert title == "an order that works: completed, 39.80 EUR"
        assert _balance(orders[0]) == {
            "stock of A1": (10, 8),
            "stock of B2": (3, 3),
            "money of Ada": (10_000, 6_020),
            "money of the shop": (0, 3_980),
            "parcels": (0, 1),
            "mails": (0, 1),
        }

    def test_a_failed_shipment_leaves_the_shop_as_it_was(self, orders: tuple[str, str]) -> None:
        """The undo restores every cent and every piece."""
        title, balance = orders[1].splitlines()[0], _balance(orders[1])
        assert title.endswith("compensated, because fulfilment failed: the carrier is on strike")
        assert len(balance) == 6
        assert {name: after for name, (_, after) in balance.items()} == {
            name: before for name, (before, _) in balance.items()
        }

    def test_its_timeline_shows_the_undo_in_reverse(self, orders: tuple[str, str]) -> None:
        """After the payment and two attempts to ship, the undo runs from the last step."""
        told = re.findall(r"^ +[\d.]+ s +(\w+) +(.+)$", orders[1], re.MULTILINE)
        assert ("payment", "succeeded") in told
        assert told.count(("fulfilment", "failed: the carrier is on strike")) == 2
        undone = [step for step, what in told if what == "undone"]
        assert undone == ["fulfilment", "payment", "inventory"]
        assert told[-1] == ("saga", "compensated")


def _balance(part: str) -> dict[str, tuple[int, int]]:
    found = re.findall(r"^  ([\w ]+): (\d+) -> (\d+)$", part, re.MULTILINE)
    return {name: (int(before), int(after)) for name, before, after in found}


class TestShop:
    @pytest.fixture
    def shop(self, tmp_path: Path) -> Shop:
        return Shop(tmp_path / "shop.sqlite")

    def test_a_repeated_attempt_counts_once(self, shop: Shop) -> None:
        """The second attempt under a key changes nothing."""
        for _ in range(2):
            shop.take("k1", "A1", 4)
            shop.pay("k2", "Ada", 500)
            shop.write("k3", "mail", "Dear Ada")
        assert shop.balance()["stock of A1"] == 6
        assert shop.balance()["money of the shop"] == 500
        assert shop.mails() == ["Dear Ada"]

    def test_a_repeated_undo_puts_back_once(self, shop: Shop) -> None:
        """Stock, money and papers are as before, however often the undo runs."""
        before = shop.balance()
        shop.take("k1", "A1", 4)
        shop.pay("k2", "Ada", 500)
        shop.write("k3", "mail", "Dear Ada")
        assert [shop.put_back(key) for key in ("k1", "k2", "k3")] == [True] * 3
        assert [shop.put_back(key) for key in ("k1", "k2", "k3")] == [False] * 3
        assert shop.balance() == before

    def test_an_undo_that_overtakes_its_step_wins(self, shop: Shop) -> None:
        """A change after its undo has no effect, since no further undo would come."""
        before = shop.balance()
        assert not shop.put_back("k1")
        shop.take("k1", "A1", 4)
        shop.write("k1", "parcel", "4 x A1")
        assert shop.balance() == before

    @pytest.mark.parametrize(("sku", "pieces"), [("B2", 4), ("no such", 1)])
    def test_what_is_not_there_is_refused_and_can_be_asked_again(
        self, shop: Shop, sku: str, pieces: int
    ) -> None:
        """A refusal moves nothing and leaves its key free."""
        before = shop.balance()
        for _ in range(2):
            with pytest.raises(RefusedError):
                shop.take("k1", sku, pieces)
        assert shop.balance() == before

    def test_a_payment_that_is_refused_moves_nothing(self, shop: Shop) -> None:
        """Both accounts stay the same."""
        before = shop.balance()
        with pytest.raises(RefusedError, match="not enough money left of Ada"):
            shop.pay("k1", "Ada", 10_001)
        assert shop.balance() == before


def test_existing_tasks_are_done_and_undone_unchanged(url: str) -> None:
    """The team's tasks keep their journal; the invoice of an undeliverable parcel is voided."""
    out = run("-m", "examples.existing_tasks", MULTIAGENTS_REDIS_URL=url)
    assert out.splitlines() == [
        "Ada: completed, {'courier': 'Hermes'}",
        "Bob: compensated, no courier goes to Atlantis (undo: invoice succeeded)",
        "journal:",
        "invoice Ada-120 written",
        "courier to Bern booked",
        "invoice Bob-120 written",
        "invoice Bob-120 voided",
    ]


def test_an_invoice_of_unknown_outcome_needs_no_person(tmp_path: Path) -> None:
    """The failed step has no result, and its undo works without one."""
    script = """
from examples.team.sagas import runtime
from multiagents.testing.lab import eager

with eager(runtime) as lab:
    lab.fail("invoice", attempt=None)
    given = {"customer": "Ada", "amount": 120, "address": "Bern"}
    print(lab.get(lab.start("billing", given))["state"])
"""
    journal = tmp_path / "journal"
    assert run("-c", script, BILLING_JOURNAL=str(journal)) == "compensated\n"


def test_the_teams_tasks_know_nothing_of_sagas() -> None:
    """The tasks that the page calls unchanged import nothing of ours."""
    text = (ROOT / "examples" / "team" / "tasks.py").read_text()
    assert "multiagents" not in text


def test_the_fan_out_joins_what_its_branches_found(url: str) -> None:
    """Each branch's result has its name, and the join has read all three."""
    out = run("-m", "examples.fan_out", MULTIAGENTS_REDIS_URL=url)
    assert out.splitlines() == [
        "branch words: {'words': 29}",
        "branch keywords: {'keywords': ['steps', 'order', 'saga']}",
        "branch readability: {'words_per_sentence': 9.7, 'level': 'easy'}",
        "joined: 29 words, easy to read, about steps, order, saga",
    ]


def test_customer_support_passes_typed_answers_from_step_to_step(url: str) -> None:
    """Sentiment and intent have known values, and the summary uses the counted figures."""
    note, *lines = run("-m", "examples.customer_support", MULTIAGENTS_REDIS_URL=url).splitlines()
    assert note == STUB_NOTE
    assert lines[1:] == [
        "sentiment: negative, urgency 4 of 5",
        "intent: return",
        "orders: 3, returned: 1",
        "summary: A good customer with a broken lamp (3 orders, 319.80 EUR spent, 1 returned).",
        "next: Refund the lamp and apologise.",
    ]


def test_the_monitors_count_every_attempt_and_event(url: str) -> None:
    """Each of three sagas has two steps, and the second fails once."""
    lines = run("-m", "examples.monitoring_example", MULTIAGENTS_REDIS_URL=url).splitlines()
    assert {"one: completed, {'stored': 3}", "fifteen: completed, {'stored': 7}"} <= set(lines)
    assert "  measure_text: 3 attempts, 3 succeeded, 0 failed {}, healthy" in lines
    failing = "  store_length: 6 attempts, 3 succeeded, 3 failed {'WorkerExecutionError': 3}"
    assert f"{failing}, unhealthy" in lines
    (commands,) = (line for line in lines if line.startswith("  command: "))
    assert "'published': 9" in commands
    assert "'completed': 6, 'failed': 3" in commands
    assert lines[-1] == "log: 3 lines 'worker failed', the last of step 'store'"


def test_the_deployed_workers_publish_the_workflows(url: str) -> None:
    """A client without the examples' code starts them by name."""
    modules = "workers.io,workers.llm,workers.cpu"
    code = (
        "from multiagents import start_saga\n"
        "print(start_saga.delay('review', {'text': 'Good words.'}).get(timeout=30)['review'])"
    )
    with Worker(url, "-Q", "llm,io", "-c", "2", imports=modules) as worker:
        worker.wait_ready()
        out = run("-c", code, MULTIAGENTS_REDIS_URL=url)
    assert out == "2 words, easy to read, about good, words\n"


def test_all_examples_are_found() -> None:
    """The runner finds exactly the examples that the README describes."""
    code = "import run_examples; print(*run_examples.find_examples())"
    described = re.findall(r"^\*\*\[(\w+)\]", (ROOT / "examples" / "README.md").read_text(), re.M)
    assert run("-c", code).split() == sorted(described)


class TestSandbox:
    def test_an_example_brings_its_own_server_and_leaves_nothing(self, tmp_path: Path) -> None:
        """With nothing set, the runner ends well; no process and no file of it is left."""
        out = run("run_examples.py", "fan_out", TMPDIR=str(tmp_path))
        assert out.startswith("== fan_out\nbranch words:")
        assert list(tmp_path.iterdir()) == []
        assert _users_of(tmp_path) == []

    def test_a_terminated_example_leaves_nothing(self, tmp_path: Path) -> None:
        """SIGTERM in the middle unwinds: worker and server are stopped, the folder is gone."""
        code = (
            "import sys\nfrom multiagents.testing.sandbox import sandbox\n"
            "with sandbox():\n    print('ready', flush=True)\n    sys.stdin.read()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment(TMPDIR=str(tmp_path)),
            stdin=subprocess.PIPE,  # stays open until the test ends, so only a signal ends it
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert [process.stdout.readline().strip() for _ in range(2)] == [STUB_NOTE, "ready"]
            assert len(_users_of(tmp_path)) >= 2
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
        wait_for(lambda: not _users_of(tmp_path), what="its processes are gone")
        assert list(tmp_path.iterdir()) == []

    def test_a_worker_that_cannot_start_says_why(self, url: str) -> None:
        """The error has the end of the worker's log."""
        code = (
            "from multiagents.testing.sandbox import sandbox, SandboxError\n"
            "try:\n    with sandbox(['no_such_module'], stub=False): pass\n"
            "except SandboxError as error: print(error)\n"
        )
        assert "no module 'no_such_module' in" in run("-c", code, MULTIAGENTS_REDIS_URL=url)

    def test_a_sandbox_that_comes_too_late_is_refused(self, url: str) -> None:
        """An app that is bound to another server would start its sagas there."""
        code = (
            "import os\nfrom multiagents import sagas\nfrom multiagents.testing.sandbox import *\n"
            f"os.environ['MULTIAGENTS_REDIS_URL'] = {url!r}\n"
            "try:\n    with sandbox(): pass\n"
            "except NotAllowed as error: print(error)\n"
        )
        assert "enter sandbox() first" in run("-c", code)


def _users_of(folder: Path) -> list[int]:
    """The processes with this folder in their environment, or as their working folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(folder):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # others' processes, or just gone
            continue
    return found
