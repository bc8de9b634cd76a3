"""Does the context keep the user's data apart from the engine's attributes?"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from multiagents.core.exceptions import InvalidInput, InvalidResult
from multiagents.worker_sdk.context import Context, build_data


def test_the_dict_holds_the_users_data_alone() -> None:
    """Keys named like attributes belong to the user and stay."""
    data = {"step": 1, "results": [2], "attempt": "x", "heartbeat": None, "copy": 3, "items": 4}
    context = Context(data, step="charge", attempt=2, results={"a": {"b": 1}})
    assert dict(context) == data
    assert context["step"] == 1
    assert (context.step, context.attempt, context.results) == ("charge", 2, {"a": {"b": 1}})


def test_a_unit_test_builds_one_from_data_alone() -> None:
    """The object records progress and checkpoints itself."""
    context = Context({"x": 1})
    context.heartbeat(0.4, note="page 4/10")
    context.checkpoint({"page": (4, 5)})
    assert (context.progress, context.note) == (0.4, "page 4/10")
    assert context.checkpoint_value == {"page": [4, 5]}
    assert (context.attempt, context.step_result, context.error) == (1, None, None)


def test_heartbeats_and_checkpoints_reach_the_engine() -> None:
    """They go through the callables that the engine passes in."""
    heard: list[Any] = []
    context = Context(
        on_heartbeat=lambda progress, note: heard.append((progress, note)),
        on_checkpoint=heard.append,
    )
    context.heartbeat()
    context.heartbeat(1, "done")
    context.checkpoint([1])
    assert heard == [(None, ""), (1, "done"), [1]]


@pytest.mark.parametrize("progress", [-0.1, 1.01, 40, float("nan")])
def test_progress_outside_0_to_1_is_refused(progress: float) -> None:
    """40 does not mean 40 %."""
    with pytest.raises(InvalidInput, match="expected 0 to 1"):
        Context(step="pages").heartbeat(progress)


def test_a_checkpoint_that_cannot_be_stored_is_refused() -> None:
    """The error names the key before anything reaches the engine."""
    heard: list[Any] = []
    context = Context(step="pages", on_checkpoint=heard.append)
    with pytest.raises(InvalidResult, match="checkpoint of 'pages': key 'seen' is a set"):
        context.checkpoint({"seen": {1}})
    assert heard == []
    assert context.checkpoint_value is None


def test_a_copy_stays_with_the_engine() -> None:
    """Changes to its data leave the original's unchanged."""
    heard: list[Any] = []
    context = Context({"x": 1}, step="s", on_checkpoint=heard.append)
    for twin in (context.copy(), copy.copy(context)):
        twin["x"] = 2
        twin.checkpoint(1)
        assert twin.step == "s"
    assert context == {"x": 1}
    assert heard == [1, 1]


def test_a_pickled_or_deep_copy_keeps_all_but_the_engine() -> None:
    """Such a copy belongs to no attempt and records its own heartbeats."""
    context = Context(
        {"x": [1]}, transaction_id="t", results={"a": {}}, on_heartbeat=lambda progress, note: None
    )
    for twin in (pickle.loads(pickle.dumps(context)), copy.deepcopy(context)):
        assert twin == context
        assert isinstance(twin, Context)
        assert (twin.transaction_id, twin.results) == ("t", {"a": {}})
        assert twin["x"] is not context["x"]
        twin.heartbeat(0.5)
        assert (twin.progress, context.progress) == (0.5, None)


def test_results_are_laid_over_the_input_in_order() -> None:
    """The later of two results wins a shared key; the input stays unchanged."""
    given = {"a": 1, "b": 1, "c": 1}
    assert build_data(given, [{"b": 2, "c": 2}, {"c": 3}]) == {"a": 1, "b": 2, "c": 3}
    assert given == {"a": 1, "b": 1, "c": 1}


def test_a_key_read_as_an_attribute_is_named_as_a_key() -> None:
    """``context.city`` suggests ``context["city"]``; copies and pickles still work."""
    context = Context({"city": "Oslo"})
    with pytest.raises(AttributeError, match=r"no attribute 'city': write context\['city'\]"):
        context.city  # noqa: B018 - as a user reads it
    with pytest.raises(AttributeError, match=r"no attribute 'town', and no key of that name"):
        context.town  # noqa: B018 - as a user reads it
    assert not hasattr(context, "town")
    for twin in (copy.deepcopy(context), pickle.loads(pickle.dumps(context))):
        assert twin == context
