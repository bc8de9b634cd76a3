"""What do JSON and YAML files promise, and does the published schema agree?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from multiagents.core.exceptions import InvalidWorkflow
from multiagents.core.policies import RetryPolicy
from multiagents.workflows import schema
from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.files import json_schema, load_definition, load_file, to_plain
from multiagents.workflows.parse import read
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.validate import check
from multiagents.workflows.workflow import Workflow, from_canonical

YAML = """
$schema: workflow.schema.json
name: order
timeout_s: 3600
steps:
  - name: reserve
    worker: reserve_inventory
    compensation: release_inventory
  - name: charge
    worker:
      task: shop.charge
      args: [input.amount, key]
    compensation: refund_card
    retry: 5
    when: input.amount > 0
  - parallel:
      - {name: mail, worker: send_mail}
      - {name: ship, worker: ship_order, queue: slow}
  - name: close
    worker: close_order
  - name: audit
    worker: audit
    depends_on: []
  - name: report
    worker: report
    depends_on: audit
"""


def built() -> Workflow:
    """The workflow that the builder makes, equal to the YAML text."""
    return (
        WorkflowBuilder("order", timeout_s=3600)
        .add_step("reserve", "reserve_inventory", compensation="release_inventory")
        .add_step(
            "charge",
            task("shop.charge", args=["input.amount", "key"]),
            compensation="refund_card",
            retry={"max_attempts": 5},
            when="input.amount > 0",
        )
        .parallel(
            [("mail", "send_mail"), {"name": "ship", "worker": "ship_order", "queue": "slow"}]
        )
        .add_step("close", "close_order")
        .add_step("audit", "audit", depends_on=[])
        .add_step("report", "report", depends_on="audit")
        .build()
    )


def test_builder_json_and_yaml_mean_the_same(tmp_path: Path) -> None:
    """All three forms give one content and one version."""
    (tmp_path / "order.yaml").write_text(YAML)
    (tmp_path / "order.json").write_text(json.dumps(yaml.safe_load(YAML)))
    (tmp_path / "plain.yml").write_text(yaml.safe_dump(to_plain(built())))
    for name in ("order.yaml", "order.json", "plain.yml"):
        loaded = load_file(tmp_path / name)
        assert loaded == built()
        assert loaded.version == built().version


def test_a_plain_form_has_its_dependencies_spelled_out() -> None:
    """It keeps its meaning when steps move or go."""
    assert [step["depends_on"] for step in to_plain(built())["steps"]] == [
        [],
        ["reserve"],
        ["charge"],
        ["charge"],
        ["mail", "ship"],
        [],
        ["audit"],
    ]


def test_unknown_keys_are_named_with_what_was_meant() -> None:
    """Suggestions appear at every level, beside other mistakes."""
    with pytest.raises(InvalidWorkflow) as raised:
        load_definition(
            {
                "name": "order",
                "timeout": 5,
                "steps": [
                    {"name": "a", "worker": "w", "compensate": "undo"},
                    {"name": "b", "worker": {"task": "t", "arguments": []}},
                    {"parallel": [{"name": "c", "worker": "w", "retry": {"cap": 1}}], "when": "x"},
                    {"worker": "w"},
                    {"name": "d"},
                ],
            }
        )
    assert [error.split(" known: ")[0] for error in raised.value.errors] == [
        "order: unknown key 'timeout'; did you mean 'timeout_s'?",
        "order.steps[2]: unknown key 'when' beside 'parallel';",
        "order.steps[0] 'a': unknown key 'compensate'; did you mean 'compensation'?",
        "order.steps[1] 'b': unknown key 'arguments' in worker; did you mean 'args'?",
        "order.steps[2].parallel[0] 'c': unknown key 'cap' in retry; did you mean 'cap_s'?",
        "order.steps[3]: 'name' is missing",
        "order.steps[4] 'd': 'worker' is missing; expected a worker's name, a @worker function,"
        " a Celery task or task(...)",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "a workflow is a mapping with 'name' and 'steps', not list"),
        (None, "a workflow is a mapping with 'name' and 'steps', not nothing"),
        ({"name": "a"}, "a: has no steps; expected a list of steps"),
        ({"name": "a", "steps": "b"}, "a: steps is str; expected a list of steps"),
        ({"name": "a", "steps": []}, "a: has no steps; add at least one"),
        ({"name": "a", "steps": [{"parallel": []}]}, "a.steps[0]: 'parallel' needs a list"),
        ({"steps": [{"name": "s", "worker": "w"}]}, "workflow: 'name' is missing"),
        ({"name": 5, "steps": [{"name": "s", "worker": "w"}]}, "name should be a valid string"),
        ({"name": "a", "steps": [{"name": "s", "worker": "w"}], True: 1}, "unknown key 'True'"),
        ({"name": "a", "steps": [{"name": "s", "worker": ""}]}, "1 to 128 characters, not 0"),
        ({"name": "a", "steps": [{"name": "s", "worker": 5}]}, "task(...), not int"),
    ],
)
def test_what_is_no_definition_is_refused_in_words(data: object, message: str) -> None:
    """No other exception escapes."""
    with pytest.raises(InvalidWorkflow) as raised:
        load_definition(data)
    assert message in str(raised.value)


def test_null_is_the_same_as_leaving_a_key_out() -> None:
    """This includes dependencies: only an empty list makes a root."""
    steps = [
        {"name": "a", "worker": "w", "retry": None},
        {"name": "b", "worker": "w", "depends_on": None, "compensation": None, "tags": None},
    ]
    steps[1].pop("tags")
    loaded = load_definition({"name": "n", "tags": None, "description": None, "steps": steps})
    assert loaded.steps[1].depends_on == ("a",)
    assert loaded.tags == ()


def test_data_that_is_nested_deep_is_a_mistake_in_its_place() -> None:
    """Data passed in by a program gets the same error."""
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    for document in (
        {"name": "a", "steps": deep},
        {"name": "a", "steps": [{"name": "s", "worker": "w", "retry": deep}]},
        {"name": "a", "steps": [{"name": "s", "worker": {"task": "t", "args": deep}}]},
        {"name": "a", "tags": deep, "steps": [{"name": "s", "worker": "w"}]},
    ):
        with pytest.raises(InvalidWorkflow):
            load_definition(document)


def test_the_published_schema_is_the_generated_one() -> None:
    """``python -m multiagents.workflows.schema`` generates the file."""
    assert schema.published() == schema.text()
    jsonschema.Draft202012Validator.check_schema(json_schema())


VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_the_schema_accepts_good_documents() -> None:
    """Short forms, parallel groups and explicit forms are valid."""
    for document in (yaml.safe_load(YAML), to_plain(built())):
        assert list(VALIDATOR.iter_errors(document)) == []


def step(**fields: Any) -> dict[str, Any]:
    """A document of one step with these fields."""
    return {"name": "order", "steps": [{"name": "a", "worker": "w", **fields}]}


@pytest.mark.parametrize(
    "document",
    [
        {"name": "order"},
        {"name": "order", "steps": []},
        {"steps": [{"name": "a", "worker": "w"}]},
        {"name": "a:b", "steps": [{"name": "a", "worker": "w"}]},
        {"name": "order", "steps": [{"parallel": []}]},
        {"name": "order", "steps": [{"parallel": [{"name": "a"}]}]},
        {"name": "order", "steps": [{"parallel": [{"name": "a", "worker": "w"}], "when": "x"}]},
        {"name": "order", "steps": [{"name": "a"}]},
        step(name="a|b"),
        step(compensate="undo"),
        step(worker={"args": []}),
        step(worker={"task": "t", "args": [5]}),
        step(retry=0),
        step(retry={"attempts": 3}),
        step(timeout_s=0),
        step(priority=10),
        step(compensate_on_failure="sometimes", compensation="undo"),
        step(depends_on=5),
    ],
    ids=str,
)
def test_the_schema_and_the_loader_refuse_the_same(document: Any) -> None:
    """An editor marks the documents that the program refuses."""
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(InvalidWorkflow):
        load_definition(document)


_SECONDS = st.floats(0.001, 1e6)
_POLICIES = st.builds(
    RetryPolicy, max_attempts=st.integers(1, 1000), backoff_s=_SECONDS.map(lambda s: s / 100)
)
_WORKERS = st.text("abcdef.", min_size=1, max_size=8)
_CALLS = st.builds(
    TaskCall,
    task=_WORKERS,
    args=st.none() | st.just(("input.amount", "key")),
    kwargs=st.none() | st.just({"amount": "input.amount"}),
    timeout_s=_SECONDS,
)


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """Any sound workflow: a random graph with random options, in a random order of definition."""
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 8))):
        names = [step.name for step in steps]
        before = draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) if names else []
        undo = draw(st.none() | _WORKERS | _CALLS)
        readable = [f"steps.{name}.state == 'skipped'" for name in before]
        steps.append(
            Step(
                name=f"s{number}",
                worker=draw(_WORKERS | _CALLS),
                depends_on=tuple(before),
                when=draw(st.none() | st.sampled_from(["input.x > 1", *readable])),
                retry=draw(st.none() | _POLICIES),
                timeout_s=draw(st.none() | _SECONDS),
                compensation=undo,
                compensation_retry=draw(st.none() | _POLICIES) if undo else None,
                compensate_on_failure=draw(st.sampled_from(["unknown", "always", "never"]))
                if undo
                else "unknown",
                priority=draw(st.none() | st.integers(0, 9)),
            )
        )
    return Workflow(
        name="any",
        steps=tuple(draw(st.permutations(steps))),
        timeout_s=draw(st.none() | _SECONDS),
        parallel_undo=draw(st.booleans()),
        tags=tuple(draw(st.lists(_WORKERS, max_size=2))),
        description=draw(st.text(max_size=20)),
    )


@given(workflows())
def test_any_workflow_survives_every_written_form(workflow: Workflow) -> None:
    """Plain data, JSON, YAML and the canonical form keep the workflow and its version."""
    assert check(workflow) == ()
    plain = to_plain(workflow)
    assert VALIDATOR.is_valid(plain)
    for copy in (
        load_definition(plain),
        load_definition(json.loads(json.dumps(plain))),
        load_definition(yaml.safe_load(yaml.safe_dump(plain))),
        from_canonical(workflow.canonical()),
    ):
        assert copy == workflow
        assert copy.version == workflow.version


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "", "s0", "input.x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "worker", "depends_on", "parallel", "retry", "task", "when"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"name": _JSON, "steps": st.lists(_JSON, max_size=4) | _JSON}))
def test_any_json_is_a_workflow_or_a_list_of_mistakes(document: Any) -> None:
    """No document makes the loader fail otherwise."""
    reading = read(document)
    if reading.workflow is None:
        assert reading.errors
    else:
        assert load_definition(to_plain(reading.workflow)) == reading.workflow
