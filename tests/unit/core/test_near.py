"""Is the name found that the user probably meant?"""

from __future__ import annotations

from multiagents.core.near import MISTYPED, did_you_mean, near, nearest, nearest_dotted


def test_the_nearest_name_is_found_or_none() -> None:
    """The caller chooses how similar two names must be."""
    known = ["reserve_stock", "release_stock", "charge"]
    assert nearest("reserv_stock", known) == "reserve_stock"
    assert near("reserv_stock", known, most=2) == ["reserve_stock", "release_stock"]
    assert nearest("release_stock", ["reserve_stock"], alike=MISTYPED) == ""
    assert nearest("reserv_stock", known, alike=MISTYPED) == "reserve_stock"
    assert nearest("anything", []) == ""


def test_of_dotted_names_the_last_part_decides() -> None:
    """The last part decides between names of one module; among modules the nearest one wins."""
    known = ["shop.tasks.notify", "shop.tasks.charge", "bank.tasks.charge"]
    assert nearest_dotted("shop.tasks.chrage", known) == "shop.tasks.charge"
    assert nearest_dotted("bank.tasks.chrage", known) == "bank.tasks.charge"
    assert nearest_dotted("shop.tasks.refund", known) == ""


def test_a_question_is_asked_only_of_a_name() -> None:
    """The suggestion appears only with a name; the rest of the message always does."""
    assert did_you_mean("charge") == "did you mean 'charge'?"
    assert did_you_mean("charge", "known: charge") == "did you mean 'charge'? known: charge"
    assert did_you_mean("", "known: none") == "known: none"
