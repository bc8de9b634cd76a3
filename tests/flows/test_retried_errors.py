"""Which errors of user code are retried, and does a policy change that? (rules 2, 5)

Eager mode calls each function as a worker does, and back-off passes on the clock.
"""

from __future__ import annotations

import json
from bdb import BdbQuit
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from multiagents import (
    InvalidInput,
    InvalidWorkflow,
    NonRetryableError,
    RetryPolicy,
    Step,
    Workflow,
    WorkflowBuilder,
    app,
    retry,
    sagas,
    worker,
)
from multiagents.workflows.files import json_schema, load_definition, load_file
from multiagents.workflows.workflow import from_canonical, to_plain

ERRORS: dict[str, Any] = {}
"""The errors that `re.work`, `re.undo` and the plain tasks raise, by name; missing: none."""


class Declined(KeyError):
    """A user's own error, derived from a Python mistake's class."""


def _raise(name: str) -> None:
    if name in ERRORS:
        raise ERRORS[name]


@pytest.fixture(autouse=True)
def _no_errors() -> None:
    ERRORS.clear()


@worker("re.work")
def work(context: Any) -> None:
    _raise("work")


@worker("re.undo")
def undo(context: Any) -> None:
    _raise("undo")


@worker("re.named")
@retry(max_attempts=4, backoff_s=0.1, on=LookupError)
def named(context: Any) -> None:
    _raise("work")


@app.task(name="re.plain")
def plain(context: Any) -> None:
    _raise("work")


@app.task(name="re.plain_undo")
def plain_undo(context: Any) -> None:
    _raise("undo")


def one(target: Any = work, compensation: Any = undo, **options: Any) -> Workflow:
    """A workflow of one step."""
    builder = WorkflowBuilder("re")
    return builder.add_step("a", target, compensation=compensation, **options).build()


def step_of(saga_lab: Any, workflow: Workflow) -> dict[str, Any]:
    """The step of a saga that has settled."""
    step: dict[str, Any] = saga_lab.get(saga_lab.start(workflow))["steps"]["a"]
    return step


BOTH = pytest.mark.parametrize(
    ("target", "compensation"), [(work, undo), (plain, plain_undo)], ids=["worker", "plain task"]
)


@BOTH
def test_a_mistake_in_a_step_is_tried_once_and_undone(
    saga_lab: Any, target: Any, compensation: Any
) -> None:
    """`reply["id"]` may fail after the call that it reads, so the outcome is unknown."""
    ERRORS["work"] = KeyError("id")
    step = step_of(saga_lab, one(target, compensation))
    assert (step["attempts"], step["compensation"]["state"]) == (1, "succeeded")


@BOTH
def test_a_mistake_in_an_undo_is_tried_three_times_and_parked(
    saga_lab: Any, target: Any, compensation: Any
) -> None:
    """Other errors, and bad data such as a gateway's page, allow ten tries."""
    for error, attempts in ((AttributeError("x"), 3), (OSError("x"), 10), (ValueError("x"), 10)):
        ERRORS.update(work=ValueError("no"), undo=error)
        found = step_of(saga_lab, one(target, compensation))["compensation"]
        assert (found["state"], found["attempts"]) == ("parked", attempts), error


@BOTH
def test_a_step_names_what_is_tried_again_and_what_is_not(
    saga_lab: Any, target: Any, compensation: Any
) -> None:
    """A policy names classes or names; the class nearest to the error decides."""
    policy = {
        "max_attempts": 3,
        "backoff_s": 0,
        "on": ["LookupError"],
        "not_on": [Declined, OSError],
    }
    for error, attempts in ((IndexError("x"), 3), (Declined("x"), 1), (TimeoutError("x"), 1)):
        ERRORS["work"] = error
        assert step_of(saga_lab, one(target, compensation, retry=policy))["attempts"] == attempts


@BOTH
def test_a_compensation_names_errors_likewise(
    saga_lab: Any, target: Any, compensation: Any
) -> None:
    """An error in ``on`` gets the policy's tries, one in ``not_on`` a single try."""
    policy = {"max_attempts": 5, "backoff_s": 0, "on": KeyError, "not_on": "ConnectionError"}
    for error, attempts in (
        (KeyError("x"), 5),
        (ConnectionResetError("x"), 1),
        (TypeError("x"), 3),
    ):
        ERRORS.update(work=ValueError("no"), undo=error)
        workflow = one(target, compensation, compensation_retry=policy)
        assert step_of(saga_lab, workflow)["compensation"]["attempts"] == attempts


def test_a_step_comes_before_its_worker_and_that_before_what_is_usual(saga_lab: Any) -> None:
    """A step's own policy replaces the worker's whole policy, names included."""
    ERRORS["work"] = KeyError("x")
    found = [step_of(saga_lab, one(named, retry=own))["attempts"] for own in (None, 5)]
    assert found == [4, 1]


def test_an_error_that_is_never_retried_is_if_it_is_named(saga_lab: Any) -> None:
    """A named `NonRetryableError` is retried, and still counts as clean."""
    ERRORS["work"] = NonRetryableError("closed", clean=True)
    for name, attempts in (("NonRetryableError", 2), ("Exception", 2), ("ValueError", 1)):
        workflow = one(retry={"max_attempts": 2, "on": name})
        step = step_of(saga_lab, workflow)
        assert (step["attempts"], step["compensation"]) == (attempts, None), name


def test_a_named_error_is_tried_again_when_it_asks_for_it(saga_lab: Any, saga_clock: Any) -> None:
    """Its ``retry_after`` counts as any other error's."""
    ERRORS["work"] = Declined("x")
    ERRORS["work"].retry_after = 1000
    began_ms = saga_clock.now_ms()
    step_of(saga_lab, one(retry={"max_attempts": 2, "on": [Declined]}))
    assert saga_clock.now_ms() - began_ms >= 1_000_000


@pytest.mark.parametrize("kind", ["work", "undo"])
def test_a_debugger_without_a_terminal_is_not_tried_again(saga_lab: Any, kind: str) -> None:
    """This covers a forgotten `breakpoint()` in a step and in an undo."""
    ERRORS.update({"work": ValueError("no"), kind: BdbQuit()})
    step = step_of(saga_lab, one())
    found = step if kind == "work" else step["compensation"]
    assert found["attempts"] == 1
    assert "breakpoint() works in `multiagents dev --pool solo`" in found["error"]["message"]


def test_history_tells_the_classes_of_an_error(saga_lab: Any) -> None:
    """A policy can name any of them."""
    ERRORS["work"] = Declined("x")
    failed = [
        event["data"]["classes"]
        for event in sagas.history(saga_lab.start(one()))
        if event["type"] == "step_failed"
    ]
    assert json.loads(json.dumps(failed)) == [
        [f"{__name__}.Declined", "KeyError", "LookupError", "Exception"]
    ]


def test_history_gives_a_failure_its_documented_fields(saga_lab: Any) -> None:
    """The names in the JSON stay, whatever the fields of an entry are called."""
    ERRORS["work"] = Declined("x")
    (failed,) = [
        event["data"]
        for event in sagas.history(saga_lab.start(one()))
        if event["type"] == "step_failed"
    ]
    assert {"error", "outcome", "classes", "retryable", "state"} <= failed.keys()


# ---- definitions ----


def test_the_names_are_the_same_from_python_json_and_yaml(tmp_path: Path) -> None:
    """The stored name is that of the defining module, whichever was written."""
    built = one("re.work", "re.undo", retry={"on": [json.JSONDecodeError], "not_on": OSError})
    policy = {"on": "json.JSONDecodeError", "not_on": ["IOError"]}
    step = {"name": "a", "worker": "re.work", "compensation": "re.undo", "retry": policy}
    data = {"name": "re", "steps": [step]}
    text = "name: re\nsteps:\n- name: a\n  worker: re.work\n  compensation: re.undo\n"
    text += "  retry: {on: json.JSONDecodeError, not_on: [OSError]}\n"
    (tmp_path / "re.yaml").write_text(text)
    assert built == load_definition(data) == load_file(tmp_path / "re.yaml")
    assert built.steps[0].retry == RetryPolicy(on=[json.JSONDecodeError], not_on=[OSError])
    assert load_definition(yaml.safe_load(text)) == built
    assert from_canonical(built.canonical()) == load_definition(to_plain(built)) == built
    Draft202012Validator(json_schema()).validate(data)
    Draft202012Validator(json_schema()).validate(to_plain(built))


def test_a_stored_definition_needs_no_module_of_its_errors() -> None:
    """A deciding process may lack the library, since the name suffices."""
    policy = RetryPolicy(on=["no_such_library.Error"])
    workflow = Workflow(name="re", steps=(Step(name="a", worker="re.work", retry=policy),))
    assert from_canonical(workflow.canonical()) == workflow


def test_a_definition_that_names_no_errors_has_the_hash_that_it_had() -> None:
    """Sagas are pinned by the hash."""
    workflow = one("re.work", "re.undo", retry=5, compensation_retry={"cap_s": 9})
    assert workflow.version == "1be5cf52e5dcc0b5"
    empty = one(
        "re.work", "re.undo", retry={"max_attempts": 5, "on": []}, compensation_retry={"cap_s": 9}
    )
    assert empty.version == workflow.version


def test_every_mistake_in_the_names_is_told_at_once() -> None:
    """Each has its place and the nearest name."""
    wrong = {"on": ["KeyEror", "json.Nope", OSError], "not_on": [IOError, 5], "no": 1}
    builder = WorkflowBuilder("re").add_step("a", "re.work", retry=wrong)
    with pytest.raises(InvalidWorkflow) as caught:
        builder.build()
    place = "re.steps[0] 'a': "
    expected = "expected one such as KeyError or requests.ConnectionError"
    assert caught.value.errors == (
        f"{place}retry.on: 'KeyEror' is not an exception class; did you mean 'KeyError'?"
        f" {expected}",
        f"{place}retry.on: 'json.Nope' is not an exception class: module 'json' has no attribute"
        " 'Nope'",
        f"{place}retry.not_on: '5' is not a subclass of Exception; {expected}",
        f"{place}retry.not_on: 'OSError' is also in on: keep one",
        f"{place}unknown key 'no' in retry; known: max_attempts, backoff_s, factor, cap_s, jitter,"
        " on, not_on",
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"on": "KeyEror"}, "on: 'KeyEror' is not an exception class; did you mean 'KeyError'"),
        ({"on": [KeyError], "not_on": KeyError}, "not_on: 'KeyError' is also in on: keep one"),
        ({"off": []}, "off: .*fields: max_attempts.*, on, not_on"),
    ],
)
def test_a_decorator_refuses_them_likewise(given: dict[str, Any], said: str) -> None:
    """The decorator raises, not the first run."""
    with pytest.raises(InvalidInput, match=f"bad retry policy: {said}"):
        worker("re.wrong", retry=given)(lambda context: None)
