"""Does each stored value come back unchanged?"""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Requested,
    Succeeded,
    Unroutable,
    decode,
    encode,
)
from multiagents.core.policies import RetryPolicy
from multiagents.core.states import Action as Ask
from multiagents.core.states import FailureEffect, Kind
from multiagents.lab.simulator.workflows import random_workflow
from multiagents.saga.state import decode_saga, encode_head, encode_step
from multiagents.workflows.validate import check
from multiagents.workflows.workflow import from_canonical
from tests.support.strategies import worlds
from tests.support.world import World

_policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 9),
    backoff_s=st.floats(0, 9),
    factor=st.floats(1, 9),
    cap_s=st.floats(0, 9),
    jitter=st.booleans(),
    on=st.lists(st.sampled_from(("KeyError", "shop.Löschen", "OSError"))),
    not_on=st.lists(st.sampled_from(("ValueError", "Exception"))),
)
st.register_type_strategy(RetryPolicy, _policies)
_entries: st.SearchStrategy[Entry] = st.from_type(Entry)  # type: ignore[arg-type]  # a union


@settings(deadline=None, max_examples=300)
@given(_entries)
def test_an_entry_comes_back_as_it_was_written(entry: Entry) -> None:
    """This covers any text in any field, every type and every default."""
    assert decode(encode(entry)) == entry


@settings(deadline=None, max_examples=300)
@given(_entries)
def test_an_entry_is_one_json_list_named_by_its_type(entry: Entry) -> None:
    """Readers in other languages may rely on it."""
    row = json.loads(encode(entry))
    assert isinstance(row, list)
    assert row[0] == entry.type


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(worlds(asks=tuple(Ask)))
def test_a_saga_comes_back_as_it_was_stored(world: World) -> None:
    """Head and steps keep any state that a history leads to."""
    saga = world.saga
    steps = {
        name: json.loads(encode_step(run, saga.created_at)) for name, run in saga.steps.items()
    }
    head = json.loads(encode_head(saga))
    names = (saga.workflow, saga.version)
    assert decode_saga(saga.id, names, head=head, steps=steps) == saga


@settings(deadline=None, max_examples=200)
@given(st.randoms(use_true_random=False))
def test_a_definition_keeps_its_hash(rng: object) -> None:
    """A pinned version reads back as the same sound definition."""
    workflow = random_workflow(rng)  # type: ignore[arg-type]  # Hypothesis does not name its type
    assert check(workflow) == ()
    again = from_canonical(workflow.canonical())
    assert again == workflow
    assert again.version == workflow.version


def test_a_command_is_written_as_before_where_it_names_no_letter() -> None:
    """Old and new versions read each other's entries."""
    asked = Requested(1, Ask.SKIP, "r", "ada", "old", "take")
    assert encode(asked) == '["asked",1,"skip","r","ada","old","take"]'
    named = Requested(1, Ask.SKIP, "r", "ada", "old", "take", Kind.UNDO, 7)
    assert encode(named) == '["asked",1,"skip","r","ada","old","take","undo",7]'
    assert (decode(encode(asked)), decode(encode(named))) == (asked, named)


def test_ids_tell_apart_what_is_not_the_same() -> None:
    """Run, undo and each way to end an attempt have different ids."""
    row = ("s", 1, "ab")
    error = Failure("E", "e")
    found = [
        entry.id
        for kind in Kind
        for entry in (
            Claimed(0, kind, *row),
            Succeeded(0, kind, *row),
            Failed(0, kind, *row, error, FailureEffect.CLEAN),
            Lost(0, kind, *row),
            Unroutable(0, kind, "s", 1, error),
        )
    ]
    assert len(set(found)) == len(found)
