"""What is a workflow?

Frozen values, the same from the builder, from JSON and from YAML.  `check` in `validate` decides
whether a `Workflow` is valid.  Its ``version`` is a hash of its content, so that a running saga
keeps the definition with which it started (rule 9).  No I/O, no clock.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from multiagents.core.exceptions import InvalidInput
from multiagents.core.plain_values import NoPlainValue
from multiagents.core.plain_values import plain as plain_value
from multiagents.workflows import registry
from multiagents.workflows.step import MOST_EXAMPLES, Name, Seconds, Step


def _plain_example(value: Any) -> Any:
    """An example in the form of a stored input; `validate` reports a value without such a form."""
    try:
        return plain_value(value)
    except NoPlainValue:
        return value


Example = Annotated[dict[str, Any], BeforeValidator(_plain_example)]
"""A realistic input of a saga."""
EXAMPLES = "Inputs to show and to try; they do not change the version, and no saga carries them."


class Workflow(BaseModel):
    """A graph of steps in definition order; every dependency is in ``depends_on``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    steps: tuple[Step, ...] = Field(min_length=1)
    timeout_s: Seconds | None = None
    parallel_undo: bool = False
    tags: tuple[Name, ...] = ()
    description: str = ""
    examples: tuple[Example, ...] = Field(
        default=(), description=EXAMPLES, json_schema_extra={"maxItems": MOST_EXAMPLES}
    )

    def canonical(self) -> str:
        """The definition as JSON, the same however it was written."""
        data = self.model_dump(mode="json", exclude_defaults=True, exclude={"examples"})
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def version(self) -> str:
        """The first 16 hex digits of the SHA-256 of `canonical`."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    @cached_property
    def by_name(self) -> dict[str, Step]:
        """The steps by name, in definition order."""
        return {step.name: step for step in self.steps}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The steps' names, in definition order."""
        return tuple(self.by_name)

    @cached_property
    def position(self) -> dict[str, int]:
        """Each step's place in `names`."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def dependents(self) -> dict[str, tuple[str, ...]]:
        """For each step, the steps that wait for it, in definition order."""
        found: dict[str, list[str]] = {step.name: [] for step in self.steps}
        for step in self.steps:
            for dependency in step.depends_on:
                found[dependency].append(step.name)
        return {name: tuple(names) for name, names in found.items()}

    @cached_property
    def workers(self) -> tuple[str, ...]:
        """The names of all worker functions, also of compensations; without plain tasks."""
        targets = (each for step in self.steps for each in (step.worker, step.compensation))
        return tuple(dict.fromkeys(each for each in targets if isinstance(each, str)))

    @cached_property
    def fans_out(self) -> bool:
        """Whether several steps may become ready at once."""
        roots = sum(1 for step in self.steps if not step.depends_on)
        return roots > 1 or any(len(names) > 1 for names in self.dependents.values())

    @cached_property
    def last_steps(self) -> tuple[str, ...]:
        """The steps without dependents; their merged results are the saga's result."""
        return tuple(step.name for step in self.steps if not self.dependents[step.name])

    @cached_property
    def pivot(self) -> Step | None:
        """The point of no return, if there is one."""
        return next((step for step in self.steps if step.pivot), None)

    @cached_property
    def has_conditions(self) -> bool:
        """Whether decisions about this workflow read the input and results."""
        return any(step.when for step in self.steps)

    def get_next_step(self, step_name: str | None, context: object = None) -> Step | None:
        """The first step, in definition order, that waits for this one; None after the last.

        The name None gives the first step of all.  ``context`` is accepted and ignored: the
        engine decides for the whole saga whether a step runs, by its condition and its other
        dependencies.
        """
        if step_name is None:
            return next((step for step in self.steps if not step.depends_on), None)
        if step_name not in self.by_name:
            known = ", ".join(self.by_name)
            raise InvalidInput(f"workflow {self.name!r} has no step {step_name!r}; known: {known}")
        after = self.dependents[step_name]
        return self.by_name[after[0]] if after else None

    def register(self, *, replace: bool = False) -> Workflow:
        """Make this workflow startable by name in this process, and return it.

        Raises InvalidWorkflow if it has mistakes, or if another content has the name, unless
        ``replace``.
        """
        return registry.register(self, replace=replace)

    def ancestors(self, name: str) -> tuple[str, ...]:
        """The steps that end before this one begins, in `order`."""
        return self._ancestors[name]

    @cached_property
    def order(self) -> dict[str, int]:
        """Each step's place: after all its dependencies, else as defined.

        Results overlay each other in this order.
        """
        missing = {step.name: len(set(step.depends_on)) for step in self.steps}
        place = {step.name: number for number, step in enumerate(self.steps)}
        ready = [place[name] for name, count in missing.items() if not count]
        heapify(ready)
        ordered: dict[str, int] = {}
        while ready:
            name = self.steps[heappop(ready)].name
            ordered[name] = len(ordered)
            for dependent in self.dependents[name]:
                missing[dependent] -= 1
                if not missing[dependent]:
                    heappush(ready, place[dependent])
        return ordered

    @cached_property
    def _ancestors(self) -> _Ancestors:
        return _Ancestors(self.by_name, self.order)


class _Ancestors(dict[str, tuple[str, ...]]):
    """Filled on demand, because all pairs of a long chain would be quadratic."""

    def __init__(self, steps: dict[str, Step], order: dict[str, int]) -> None:
        super().__init__()
        self._steps = steps
        self._order = order

    def __missing__(self, name: str) -> tuple[str, ...]:
        seen: set[str] = set()
        stack = list(self._steps[name].depends_on)
        while stack:
            step = stack.pop()
            if step not in seen:
                seen.add(step)
                stack.extend(self._steps[step].depends_on)
        self[name] = tuple(sorted(seen, key=self._order.__getitem__))
        return self[name]


def from_canonical(text: str | bytes) -> Workflow:
    """The workflow with this `canonical` form, which was checked before it was stored."""
    return Workflow.model_validate_json(text)


def to_plain(workflow: Workflow) -> dict[str, Any]:
    """The definition as JSON-safe data with explicit dependencies, for display and files."""
    data = workflow.model_dump(mode="json", exclude_defaults=True)
    for step, plain in zip(workflow.steps, data["steps"], strict=True):
        plain["depends_on"] = list(step.depends_on)
    return data
