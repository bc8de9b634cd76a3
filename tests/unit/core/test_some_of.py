"""How does a message list some of many texts?"""

from __future__ import annotations

import pytest

from multiagents.core.texts import some_of


@pytest.mark.parametrize(
    ("texts", "by", "count", "expected"),
    [
        ([], ", ", None, ""),
        (["a", "b"], ", ", None, "a, b"),
        (["a", "b", "c"], ", ", None, "a, b and 1 more"),
        (["a", "b", "c"], "; ", None, "a; b; and 1 more"),
        (["a", "b"], ", ", 9, "a, b and 7 more"),
        (["a", "b"], ", ", 2, "a, b"),
    ],
)
def test_a_message_names_some_texts_and_counts_the_rest(
    texts: list[str], by: str, count: int | None, expected: str
) -> None:
    """``count`` is the number of all texts, if the list holds only some of them."""
    assert some_of(texts, 2, by=by, count=count) == expected
