"""Does each change in the demo's shop count once under its key, and is it undone once?"""

from __future__ import annotations

from pathlib import Path

import pytest

from multiagents.cli.demo.store import RefusedError, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path / "shop.sqlite")
    made.open(stock={"A1": 3}, money={"customer": 100, "shop": 0})
    return made


def test_a_change_counts_once_under_its_key(shop: Shop) -> None:
    """A second attempt of a step changes nothing."""
    assert shop.move("k", ("stock", "A1", -2)) is True
    assert shop.move("k", ("stock", "A1", -2)) is False
    assert shop.balance()["stock"] == {"A1": 1}


def test_what_was_moved_is_put_back_once(shop: Shop) -> None:
    """An undo moves the money back once, however often it runs."""
    shop.move("k", ("money", "customer", -60), ("money", "shop", 60))
    assert (shop.put_back("k"), shop.put_back("k")) == (True, False)
    assert shop.balance()["money"] == {"customer": 100, "shop": 0}


def test_putting_back_nothing_uses_the_key_up(shop: Shop) -> None:
    """An attempt that comes after its own undo changes nothing."""
    assert shop.put_back("k") is False
    assert shop.move("k", ("stock", "A1", -1)) is False
    assert shop.balance()["stock"] == {"A1": 3}


def test_what_is_not_there_cannot_be_taken(shop: Shop) -> None:
    """Stock and money never fall below zero, and a refused change leaves no trace."""
    with pytest.raises(RefusedError, match="not enough money of customer"):
        shop.move("k", ("stock", "A1", -1), ("money", "customer", -101))
    assert shop.balance()["stock"] == {"A1": 3}
    assert shop.move("k", ("stock", "A1", -1)) is True


def test_a_paper_is_written_once_and_torn_once(shop: Shop) -> None:
    """The shop counts shipments and mails."""
    shop.write("k", "shipment", "A1")
    shop.write("k", "shipment", "A1")
    assert shop.balance()["shipments"] == 1
    assert (shop.tear("k"), shop.tear("k")) == (True, False)
