"""Which mistakes does a workflow have?

`check` finds all of them, not only the first, each with its place.  It never raises, even for
unknown dependencies and cycles.  The models in `workflow` and `step` limit single fields; this
module checks the whole graph.  No I/O, no clock.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from multiagents.core.exceptions import InvalidInput, InvalidWorkflow
from multiagents.core.names import queue_flaw
from multiagents.core.near import did_you_mean, nearest
from multiagents.core.stored_json import check_input
from multiagents.core.texts import some_of
from multiagents.workflows.expression_names import Path, paths
from multiagents.workflows.expressions import ConditionError, check_argument, check_condition
from multiagents.workflows.step import MOST_EXAMPLES, Step, TaskCall

if TYPE_CHECKING:
    from multiagents.workflows.workflow import Workflow

STEP_NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"
WORKFLOW_NAME = r"[A-Za-z_]([A-Za-z0-9_. -]*[A-Za-z0-9_.-])?"
WHEN_NAMES = ("input", "steps")
FAILED_WHEN_NAMES = (*WHEN_NAMES, "result")
RUN_NAMES = (*WHEN_NAMES, "key")
"""The names that arguments of a plain task may read; ``key`` is the idempotency key."""
UNDO_NAMES = (*RUN_NAMES, "step_key", "result", "error")
"""The same for a compensation: ``key`` is its own, ``step_key`` and ``result`` are the step's."""
STEP_FIELDS = ("result", "state")
"""The fields of a step that an expression may read."""

MAX_EXAMPLE_BYTES = 16 * 1024
"""Bytes of JSON: users read and edit an example."""

_UNDO_OPTIONS = ("compensation_retry", "compensation_timeout_s", "compensate_on_failure")
_CONDITIONS = ("when", "failed_when")
_SHOWN_NAMES = 12
_SHOWN_CYCLES = 20
_MOST_SUGGESTIONS = 100
"""Suggestions in one definition; a message without one still names the unknown step."""


def check(workflow: Workflow, *, places: Sequence[str] | None = None) -> tuple[str, ...]:
    """Every mistake of the definition, with its place; empty for a correct one.

    ``places`` gives the place of each step in its file, if it is not ``steps[N]``.
    """
    return tuple(_Check(workflow, places).mistakes())


def refuse(name: str, errors: Sequence[str]) -> InvalidWorkflow:
    """The error that lists these mistakes of one or more definitions."""
    if len(errors) == 1:
        return InvalidWorkflow(f"invalid workflow: {errors[0]}", tuple(errors))
    lines = "".join(f"\n  - {error}" for error in errors)
    return InvalidWorkflow(f"{name} has {len(errors)} mistakes:{lines}", tuple(errors))


def suggest(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: a suggestion and the known names."""
    names = list(known)
    if not names:
        return "there is no other name"
    return did_you_mean(nearest(name, names), f"known: {some_of(names, _SHOWN_NAMES)}")


class _Check:
    """One examination.

    A name that appears twice means its first step.  A step without a name is not part of the
    graph; the reader of its document has reported it.
    """

    def __init__(self, workflow: Workflow, places: Sequence[str] | None) -> None:
        self.workflow = workflow
        self.steps = workflow.steps
        spots = places or [f"steps[{index}]" for index in range(len(self.steps))]
        self.places = [
            f"{workflow.name}.{spot} {step.name!r}" if step.name else f"{workflow.name}.{spot}"
            for spot, step in zip(spots, self.steps, strict=True)
        ]
        self.suggested = 0
        self.by_name: dict[str, Step] = {}
        self.place_of: dict[str, str] = {}
        for step, place in zip(self.steps, self.places, strict=True):
            if step.name:
                self.by_name.setdefault(step.name, step)
                self.place_of.setdefault(step.name, place)

    def mistakes(self) -> Iterator[str]:
        yield from self._workflow_name()
        yield from self._examples()
        for step, place in zip(self.steps, self.places, strict=True):
            yield from self._name(step, place)
            yield from self._dependencies(step, place)
            yield from self._undo_options(step, place)
            yield from self._queues(step, place)
            yield from self._expressions(step, place)
        yield from self._cycles()
        yield from self._pivots()

    # ---- one step ----

    def _workflow_name(self) -> Iterator[str]:
        if self.workflow.name and not re.fullmatch(WORKFLOW_NAME, self.workflow.name):
            yield (
                f"{self.workflow.name!r}: a workflow's name begins with a letter or _ and has"
                " only letters, digits, _ . - and spaces between them"
            )

    def _examples(self) -> Iterator[str]:
        examples, name = self.workflow.examples, self.workflow.name
        if len(examples) > MOST_EXAMPLES:
            yield f"{name}: has {len(examples)} examples; keep at most {MOST_EXAMPLES}"
        for index, example in enumerate(examples):
            try:
                check_input(example, MAX_EXAMPLE_BYTES, limited_by="an example is short")
            except InvalidInput as error:
                yield f"{name}: examples[{index}]: {error}"

    def _name(self, step: Step, place: str) -> Iterator[str]:
        if step.name and not re.fullmatch(STEP_NAME, step.name):
            yield (
                f"{place}: a step's name begins with a letter or _ and has only letters, digits,"
                " _ . and -"
            )
        if step.name and self.place_of[step.name] != place:
            yield f"{place}: the name is taken by {self.place_of[step.name]}; rename one of them"

    def _dependencies(self, step: Step, place: str) -> Iterator[str]:
        for name, count in Counter(step.depends_on).items():
            if name not in self.by_name:
                yield f"{place}: waits for unknown step {name!r}{self._meant(step, name)}"
            if count > 1:
                yield f"{place}: waits for {name!r} more than once; name it once"

    def _meant(self, step: Step, name: str) -> str:
        """A suggestion for an unknown name; limited, because each compares all names."""
        self.suggested += 1
        if self.suggested > _MOST_SUGGESTIONS:
            return ""
        return f"; {suggest(name, [other for other in self.by_name if other != step.name])}"

    def _undo_options(self, step: Step, place: str) -> Iterator[str]:
        if step.compensation is not None:
            return
        for option in _UNDO_OPTIONS:
            if getattr(step, option) != Step.model_fields[option].default:
                yield f"{place}: sets {option} without a compensation; add one or leave it out"

    def _queues(self, step: Step, place: str) -> Iterator[str]:
        named = [("", step.queue), *((field, call.queue) for field, call in _calls_of(step))]
        for field, queue in named:
            if queue is not None and (flaw := queue_flaw(queue)):
                yield f"{place}: {field}queue {queue!r}: {flaw}"

    # ---- expressions ----

    def _expressions(self, step: Step, place: str) -> Iterator[str]:
        for field, text, names in _expressions_of(step):
            try:
                (check_condition if field in _CONDITIONS else check_argument)(text)
            except ConditionError as error:
                yield f"{place}: {field}: {error}"
                continue
            of_itself = "result" in names
            for mistake in self._expression(step, text, names=names, of_itself=of_itself):
                yield f"{place}: {field}: {mistake}"

    def _expression(
        self, step: Step, text: str, *, names: Sequence[str], of_itself: bool
    ) -> Iterator[str]:
        for path in paths(text):
            reason = self._path(step, path, names=names, of_itself=of_itself)
            if reason:
                yield f"CEL {text!r}: {reason}"

    def _path(self, step: Step, path: Path, *, names: Sequence[str], of_itself: bool) -> str | None:
        """Why the step cannot read this path; None if it can."""
        if path[0] not in names:
            return (
                f"unknown name {path[0]!r}; known: {', '.join(names)}"
                f" (a key of the saga's input is input.{path[0]})"
            )
        if path[0] != "steps":
            return None
        if len(path) == 1:
            return "reads all steps at once; name the steps it needs, as in steps.NAME.result"
        if path[1] not in self.by_name:
            return f"unknown step {path[1]!r}; {self._suggest_step(path)}"
        if path[1] == step.name and not of_itself:
            return f"step {step.name!r} has no result yet when this is read"
        if path[1] != step.name and not self._waits_for(step, path[1]):
            return (
                f"step {path[1]!r} may not have ended yet; add it to depends_on of"
                f" {step.name!r} or of a step before it"
            )
        if len(path) > 2 and path[2] not in STEP_FIELDS:
            return f"steps.{path[1]} has no {path[2]!r}; {suggest(path[2], STEP_FIELDS)}"
        return None

    def _suggest_step(self, path: Path) -> str:
        longer = [n for n in self.by_name if re.match(rf"{re.escape(path[1])}[.-]", n)]
        return f'write steps["{longer[0]}"]' if longer else suggest(path[1], self.by_name)

    # ---- the graph ----

    def _waits_for(self, step: Step, name: str) -> bool:
        """Whether a step begins after the named one; true for any step in or behind a cycle."""
        before = self._all_before.get(step.name)
        return before is None or bool(before >> self._place[name] & 1)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.by_name)}

    @cached_property
    def _all_before(self) -> dict[str, int]:
        """For each step outside of cycles, all steps before it, as bits at their places.

        Bits, because sets for all pairs of a wide group are cubic.
        """
        before = {name: dict.fromkeys(self._before(name)) for name in self.by_name}
        found: dict[str, int] = {}
        for name in _in_order(before):
            found[name] = 0
            for other in before[name]:
                found[name] |= found[other] | 1 << self._place[other]
        return found

    def _before(self, name: str) -> list[str]:
        step = self.by_name.get(name)
        return [] if step is None else [n for n in step.depends_on if n in self.by_name]

    def _reach(self, start: str, edges: dict[str, list[str]]) -> set[str]:
        seen: set[str] = set()
        stack = [start]
        while stack:
            fresh = [name for name in edges[stack.pop()] if name not in seen]
            seen.update(fresh)
            stack.extend(fresh)
        return seen - {start}

    def _cycles(self) -> Iterator[str]:
        """Each cycle by its steps, then one message for the steps behind cycles.

        The search removes one edge of each cycle found, so it also finds cycles that share steps.
        """
        before = {name: dict.fromkeys(self._before(name)) for name in self.by_name}
        stuck = never = _stuck(before)
        circular: set[str] = set()
        for _ in range(_SHOWN_CYCLES):
            if not stuck:
                break
            cycle = self._one_cycle(stuck, before)
            circular.update(cycle)
            yield (
                f"{self.workflow.name}: steps wait for each other in a cycle:"
                f" {' -> '.join([*cycle, cycle[0]])}; remove one of these dependencies"
            )
            del before[cycle[0]][cycle[-1]]
            stuck = _stuck(before)
        behind = [name for name in self.by_name if name in never and name not in circular]
        if behind:
            yield (
                f"{self.workflow.name}: unreachable, because they wait for a cycle:"
                f" {some_of(behind, _SHOWN_NAMES)}"
            )

    def _one_cycle(self, stuck: set[str], before: dict[str, dict[str, None]]) -> list[str]:
        """A cycle among steps that cannot start, in the order of work, first defined first."""
        name = next(name for name in self.by_name if name in stuck)
        trail: dict[str, None] = {}
        while name not in trail:
            trail[name] = None
            name = next(other for other in before[name] if other in stuck)
        walked = list(trail)
        cycle = walked[walked.index(name) :][::-1]
        first = cycle.index(min(cycle, key=self._place.__getitem__))
        return cycle[first:] + cycle[:first]

    def _pivots(self) -> Iterator[str]:
        pivots = [step for step in self.by_name.values() if step.pivot]
        for other in pivots[1:]:
            yield (
                f"{self.place_of[other.name]}: a second pivot; {pivots[0].name!r} is already the"
                " point of no return"
            )
        if pivots:
            yield from self._around(pivots[0])

    def _around(self, pivot: Step) -> Iterator[str]:
        """The rules for the steps before and after the point of no return (rule 7, E17)."""
        if pivot.compensation is not None:
            yield (
                f"{self.place_of[pivot.name]}: a pivot is never undone; remove its compensation,"
                " or its pivot"
            )
        before = {name: self._before(name) for name in self.by_name}
        after: dict[str, list[str]] = {name: [] for name in self.by_name}
        for name, others in before.items():
            for other in others:
                after[other].append(name)
        earlier, later = self._reach(pivot.name, before), self._reach(pivot.name, after)
        for name, step in self.by_name.items():
            if name in later and step.compensation is not None:
                yield (
                    f"{self.place_of[name]}: has a compensation, but comes after the pivot"
                    f" {pivot.name!r}, after which nothing is undone; remove it or move the step"
                )
            if name != pivot.name and name not in earlier and name not in later:
                yield (
                    f"{self.place_of[name]}: is neither before nor after the pivot"
                    f" {pivot.name!r}; connect them with depends_on"
                )


def _expressions_of(step: Step) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Each expression of a step: its field, its text, and the names that it may use."""
    if step.when is not None:
        yield "when", step.when, WHEN_NAMES
    if step.failed_when is not None:
        yield "failed_when", step.failed_when, FAILED_WHEN_NAMES
    for field, target in _calls_of(step):
        names = RUN_NAMES if field == "worker." else UNDO_NAMES
        for index, text in enumerate(target.args or ()):
            yield f"{field}args[{index}]", text, names
        for key, text in (target.kwargs or {}).items():
            yield f"{field}kwargs.{key}", text, names


def _calls_of(step: Step) -> Iterator[tuple[str, TaskCall]]:
    """The plain tasks that a step names, each with the prefix of its fields."""
    for field, target in (("worker.", step.worker), ("compensation.", step.compensation)):
        if isinstance(target, TaskCall):
            yield field, target


def _in_order(before: dict[str, dict[str, None]]) -> list[str]:
    """The steps that can start, each after all its dependencies (Kahn 1962)."""
    waiting = {name: len(others) for name, others in before.items()}
    after: dict[str, list[str]] = {name: [] for name in before}
    for name, others in before.items():
        for other in others:
            after[other].append(name)
    order = [name for name, count in waiting.items() if count == 0]
    for done in order:
        for name in after[done]:
            waiting[name] -= 1
            if waiting[name] == 0:
                order.append(name)
    return order


def _stuck(before: dict[str, dict[str, None]]) -> set[str]:
    """The steps that can never start: those in a cycle or behind one."""
    return before.keys() - _in_order(before)
