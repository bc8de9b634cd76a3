"""What do a workflow's examples serve, and what do they not change?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest

from multiagents.core.clock import FakeClock
from multiagents.core.exceptions import InvalidWorkflow
from multiagents.engine.catalog import TELL_MS, Catalog
from multiagents.storage.client import Edge
from multiagents.workflows.builder import WorkflowBuilder
from multiagents.workflows.files import json_schema, load_definition, load_file, to_plain
from multiagents.workflows.validate import MAX_EXAMPLE_BYTES
from multiagents.workflows.workflow import Workflow, from_canonical
from tests.support.command_line import cli

A1 = {"sku": "A1"}


def order(*examples: Any) -> Workflow:
    return WorkflowBuilder("order", examples=examples).add_step("ship", "ship_parcel").build()


def test_examples_are_written_in_three_ways_and_read_back(tmp_path: Path) -> None:
    """A keyword, a method and a file's key give the same examples."""
    chained = WorkflowBuilder("order").example(A1).add_step("ship", "ship_parcel").build()
    (tmp_path / "order.json").write_text(json.dumps(to_plain(chained)))
    assert chained == order(A1) == load_file(tmp_path / "order.json")
    assert load_file(tmp_path / "order.json").examples == (A1,)
    jsonschema.validate(to_plain(chained), json_schema())


def test_an_example_changes_neither_version_nor_definition() -> None:
    """A saga is pinned by its definition's content, which has no examples."""
    assert order(A1).version == order().version
    assert order(A1).canonical() == order().canonical()
    assert from_canonical(order(A1).canonical()) == order()


def test_an_example_takes_the_form_in_which_an_input_is_stored() -> None:
    """An example may hold whatever an input may hold."""
    number = UUID("12345678123456781234567812345678")
    (example,) = order({"id": number, "sizes": (1, 2)}).examples
    assert example == {"id": str(number), "sizes": [1, 2]}


@pytest.mark.parametrize(
    ("examples", "mistake"),
    [
        ([{"sku": {"A1"}}], "order: examples[0]: input: key 'sku' is a set"),
        ([A1, {"__class__": 1}], "order: examples[1]: input: the reserved name"),
        ([{"text": "x" * MAX_EXAMPLE_BYTES}], "order: examples[0]: input is 16,395 bytes of JSON"),
        ([5], "order: examples[0] should be a valid dictionary, not 5"),
        (A1, "order: examples should be a list, not dict"),
        ([A1] * 21, "order: has 21 examples; keep at most 20"),
    ],
)
def test_what_could_be_no_input_is_refused_as_an_example(examples: Any, mistake: str) -> None:
    """The mistake has its place, like every mistake of a definition."""
    plain = {**to_plain(order()), "examples": examples}
    with pytest.raises(InvalidWorkflow) as raised:
        load_definition(plain)
    assert raised.value.errors[0].startswith(mistake)
    builder = WorkflowBuilder("order", examples=examples).add_step("ship", "ship_parcel")
    assert builder.errors[0].startswith(mistake)


def test_the_catalog_has_the_examples_of_the_worker_that_began_last(redis_url: str) -> None:
    """They stand beside the definitions, which stay unchanged for older processes."""
    edge, clock = Edge(redis_url), FakeClock()
    first, second = Catalog(clock), Catalog(clock)

    def examples() -> list[dict[str, Any]]:
        return edge.run(second.examples("order"))

    assert examples() == []
    edge.run(first.publish("first@h", ["io"], [order(A1)]))
    assert examples() == [A1]
    assert edge.run(second.workflow("order")) == order()
    edge.run(second.publish("second@h", ["io"], [order({"sku": "B2"})]))
    edge.run(first.publish("first@h", ["io"], [order(A1)]))
    assert examples() == [{"sku": "B2"}]
    edge.run(Catalog(clock).publish("third@h", ["io"], [order()]))
    assert examples() == []
    clock.advance(TELL_MS / 1000)
    edge.run(second.publish("second@h", ["io"], [order({"sku": "B2"})]))
    assert examples() == [{"sku": "B2"}], "what is not there at all is told again"
    edge.close()


def test_a_published_workflow_is_shown_with_its_examples(redis_url: str) -> None:
    """`workflows show` prints a file with the same meaning."""
    edge = Edge(redis_url)
    edge.run(Catalog(FakeClock()).publish("first@h", ["io"], [order(A1)]))
    edge.close()
    shown = cli("workflows", "show", "order", "--json", url=redis_url).json
    assert load_definition(shown) == order(A1)
