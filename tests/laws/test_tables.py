"""Do the tables of the rules name all there is?"""

from __future__ import annotations

from typing import get_args

from multiagents.core.entries import Entry
from multiagents.saga.decide import RULES


def test_each_type_of_entry_has_its_rule() -> None:
    """An entry of a log never meets a decision without a rule for it."""
    assert set(RULES) == set(get_args(Entry))
