"""What does a written definition mean?

A document is plain data: ``{"name", "steps": [STEP | {"parallel": [STEP, …]}], …}``.  The builder
makes one, and JSON and YAML files are documents, so all three have the same meaning:

- a step without ``depends_on`` follows the element before it: the last step, or all branches of
  the last parallel group; ``"depends_on": []`` makes a root;
- ``depends_on`` may be one name, ``retry`` may be a number of attempts;
- keys at the top that begin with ``x-`` are for anchors and notes; the reader ignores them;
- ``on`` and ``not_on`` of a policy may be one class of errors; any importable name of a library's
  class is valid, and the workflow keeps the name with the defining module.

`read` reports every mistake at once.  To do so, it ignores the bad fields of a step and
continues.  No I/O except that import.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from pydantic import BaseModel, ValidationError

from multiagents.core.error_names import read_policy
from multiagents.core.policies import ERROR_KEYS, RetryPolicy
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.task_calls import UncallableTask
from multiagents.workflows.validate import check, suggest
from multiagents.workflows.workflow import Workflow

SCHEMA_KEY = "$schema"
"""Editors find the schema of a file here; the reader ignores it."""
GROUP_KEYS = ("parallel", "depends_on")
NOTE_KEYS = "x-"
"""The reader ignores keys at the top that begin with this."""
RETRY_KEYS = ("retry", "compensation_retry")
WORKER_KEYS = ("worker", "compensation")
A_WORKER = "a worker's name, a @worker function, a Celery task or task(...)"


@dataclass(slots=True)
class DefinitionReading:
    """The result of `read`; ``workflow`` is None if there are errors."""

    name: str
    workflow: Workflow | None = None
    errors: list[str] = field(default_factory=list)
    bare: Mapping[str, str] = field(default_factory=dict)
    """By place, how to quote a value if text was expected: see `yaml_text.parse`."""


@dataclass(slots=True)
class _Placed:
    place: str
    data: Mapping[str, Any]


def read(data: object, *, bare: Mapping[str, str] | None = None) -> DefinitionReading:
    """The workflow that the document describes, or all its mistakes."""
    if not isinstance(data, Mapping):
        wanted = f"a workflow is a mapping with 'name' and 'steps', not {_kind(data)}"
        return DefinitionReading("workflow", errors=[wanted])
    keys = _text_keys(data)
    data = {key: value for key, value in keys.items() if not key.startswith(NOTE_KEYS)}
    name = data.get("name")
    reading = DefinitionReading(
        name if isinstance(name, str) and name else "workflow", bare=bare or {}
    )
    head = _read_head(data, reading)
    steps, places = _read_steps(data.get("steps"), reading)
    draft = Workflow.model_construct(**{**head, "name": reading.name}, steps=tuple(steps))
    reading.errors.extend(check(draft, places=places))
    if not reading.errors:
        reading.workflow = Workflow(**head, steps=tuple(steps))
    return reading


def _read_head(data: Mapping[str, Any], reading: DefinitionReading) -> dict[str, Any]:
    """The workflow's own fields, without the wrong ones."""
    head = _set({key: data[key] for key in data if key not in ("steps", SCHEMA_KEY)})
    stand_in = Step(name="step", worker="worker")
    try:
        Workflow.model_validate({**head, "steps": (stand_in,)})
    except ValidationError as error:
        reading.errors.extend(
            f"{reading.name}: {line}" for line in _lines(error, head, Workflow, bare=reading.bare)
        )
        bad = {item["loc"][0] for item in error.errors()}
        return {key: value for key, value in head.items() if key not in bad}
    return head


def _read_steps(elements: object, reading: DefinitionReading) -> tuple[list[Step], list[str]]:
    if not _is_list(elements):
        reason = "has no steps" if elements is None else f"steps is {_kind(elements)}"
        reading.errors.append(f"{reading.name}: {reason}; expected a list of steps")
        return [], []
    if not elements:
        reading.errors.append(f"{reading.name}: has no steps; add at least one")
    placed = list(_flatten(elements, reading))
    return [_read_step(item, reading) for item in placed], [item.place for item in placed]


def _flatten(elements: Sequence[object], reading: DefinitionReading) -> Iterator[_Placed]:
    """The steps in definition order, each with explicit dependencies."""
    last: list[str] = []
    for index, element in enumerate(elements):
        place = f"steps[{index}]"
        if isinstance(element, Mapping) and "parallel" in element:
            branches = list(_branches(element, place, reading))
        else:
            branches = list(_one(element, place, reading))
        for branch in branches:
            branch.data = _explicit(branch.data, last)
        names = [branch.data.get("name") for branch in branches]
        last = [name for name in names if isinstance(name, str)] or last
        yield from branches


def _branches(
    group: Mapping[Any, Any], place: str, reading: DefinitionReading
) -> Iterator[_Placed]:
    for key in group:
        if key not in GROUP_KEYS:
            reading.errors.append(
                f"{reading.name}.{place}: unknown key {key!r} beside 'parallel';"
                f" {suggest(str(key), GROUP_KEYS)}"
            )
    branches = group["parallel"]
    if not _is_list(branches) or not branches:
        reading.errors.append(f"{reading.name}.{place}: 'parallel' needs a list of steps")
        return
    for index, branch in enumerate(branches):
        for placed in _one(branch, f"{place}.parallel[{index}]", reading):
            placed.data = {"depends_on": group.get("depends_on"), **_set(placed.data)}
            yield placed


def _one(element: object, place: str, reading: DefinitionReading) -> Iterator[_Placed]:
    if isinstance(element, Mapping):
        yield _Placed(place, _text_keys(element))
        return
    reading.errors.append(
        f"{reading.name}.{place}: a step is a mapping with 'name' and 'worker',"
        f" not {_kind(element)}"
    )


def _set(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}


def _explicit(data: Mapping[str, Any], last: Sequence[str]) -> dict[str, Any]:
    """The step without short forms."""
    plain = _set(data)
    before = plain.get("depends_on", last)
    plain["depends_on"] = [before] if isinstance(before, str) else before
    for key in RETRY_KEYS:
        attempts = plain.get(key)
        if isinstance(attempts, int) and not isinstance(attempts, bool):
            plain[key] = {"max_attempts": attempts}
    return plain


def _read_step(placed: _Placed, reading: DefinitionReading) -> Step:
    name = placed.data.get("name")
    label = f" {name!r}" if isinstance(name, str) else ""
    lines = list(_name_errors(placed))
    try:
        return Step.model_validate(placed.data)
    except ValidationError as error:
        lines += _lines(error, placed.data, Step, bare=reading.bare, place=placed.place)
        return _without_bad(placed.data, error)
    finally:
        reading.errors.extend(f"{reading.name}.{placed.place}{label}: {line}" for line in lines)


def _name_errors(placed: _Placed) -> Iterator[str]:
    """Put the full names of error classes into a step's policies; report the unknown names."""
    plain = dict(placed.data)
    for key in RETRY_KEYS:
        policy = plain.get(key)
        if isinstance(policy, RetryPolicy):
            policy = policy.model_dump(exclude_defaults=True)
        if isinstance(policy, Mapping):
            plain[key], mistakes = read_policy(policy, ERROR_KEYS)
            yield from (f"{key}.{mistake}" for mistake in mistakes)
    placed.data = plain


def _without_bad(data: Mapping[str, Any], error: ValidationError) -> Step:
    """The step without its bad fields, so that `check` can still examine the graph."""
    bad = {item["loc"][0] for item in error.errors()}
    good = {key: value for key, value in data.items() if key not in bad}
    step = Step.model_validate({"worker": "unknown", **good, "name": "unknown"})
    name = data.get("name")
    return step.model_copy(update={"name": name if isinstance(name, str) else ""})


def task_mistakes(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    """The mistakes of a `TaskCall` on its own, one readable line each."""
    return [f"task({data.get('task')!r}): {line}" for line in _lines(error, data, TaskCall)]


def _lines(
    error: ValidationError,
    data: Mapping[Any, Any],
    model: type[BaseModel],
    *,
    bare: Mapping[str, str] | None = None,
    place: str = "",
) -> Iterator[str]:
    """One readable line for each mistake that pydantic found."""
    vague: set[object] = set()
    bare = bare or {}
    for item in error.errors(include_url=False):
        first = item["loc"][0]
        if first in WORKER_KEYS and not isinstance(data.get(first), Mapping):
            if first not in vague:
                vague.add(first)
                yield _worker_line(str(first), data) + _quotes(bare, place, (str(first),))
        elif first not in WORKER_KEYS or "TaskCall" in item["loc"]:
            path = tuple(part for part in item["loc"] if part != "TaskCall")
            quotes = _quotes(bare, place, path) if item["type"] in _WANTS_TEXT else ""
            yield _line(path, item, model=model) + quotes


_WANTS_TEXT = frozenset({"string_type", "tuple_type"})
"""A single name is allowed for a list of one."""


def _quotes(bare: Mapping[str, str], place: str, path: tuple[int | str, ...]) -> str:
    """What to write for a YAML value that was meant as text."""
    spot = ".".join(filter(None, (place, _dotted(path)))).removesuffix("[0]")
    whole_group = re.sub(r"\.parallel\[\d+\]", "", spot)
    found = bare.get(f"{spot}[0]") or bare.get(spot) or bare.get(whole_group)
    return f"; {found}" if found else ""


def _worker_line(key: str, data: Mapping[Any, Any]) -> str:
    if key not in data:
        return f"{key!r} is missing; expected {A_WORKER}"
    value = data[key]
    if isinstance(value, UncallableTask):
        return f"{key}: {value.why}"
    if isinstance(value, str):
        return f"{key} should be {A_WORKER}; a name has 1 to 128 characters, not {len(value)}"
    hint = "; decorate the function with @worker" if callable(value) else ""
    return f"{key} should be {A_WORKER}, not {_kind(value)}{hint}"


def _line(path: tuple[int | str, ...], item: Any, *, model: type[BaseModel]) -> str:
    key = path[-1]
    if item["type"] == "extra_forbidden":
        owner = f" in {_dotted(path[:-1])}" if path[:-1] else ""
        return f"unknown key {key!r}{owner}; {suggest(str(key), _fields(path[0], model))}"
    if item["type"] == "missing":
        return f"{_dotted(path)!r} is missing"
    reason = re.sub(r"^\w+ should", "should", item["msg"]).replace("valid tuple", "list")
    return f"{_dotted(path)} {reason}, not {_shown(item['input'])}"


def _fields(first: int | str, model: type[BaseModel]) -> list[str]:
    """The known keys at the place of an unknown one."""
    if first in RETRY_KEYS:
        return list(RetryPolicy.model_fields)
    if first in WORKER_KEYS:
        return list(TaskCall.model_fields)
    return list(model.model_fields)


def _dotted(path: tuple[int | str, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def _shown(value: object) -> str:
    """A number or bool as it is; for any other value only its kind."""
    return repr(value) if isinstance(value, bool | int | float) else _kind(value)


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    name = getattr(value, "__name__", "") if callable(value) else ""
    return f"{type(value).__name__} {name!r}" if name else type(value).__name__


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _text_keys(data: Mapping[Any, Any]) -> dict[str, Any]:
    """The mapping with text keys; YAML reads some bare words as other types (``on`` as true)."""
    return {str(key): value for key, value in data.items()}
