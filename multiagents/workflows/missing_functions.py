"""Which functions do definitions name that a process does not have?

A name that differs by a letter or two from one that is here is taken for a typing mistake; any
other may be that of another worker's function.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from multiagents.core.places import Place, in_brackets
from multiagents.workflows.workflow import Workflow

ALIKE = 0.85
"""Of 1; ``reserve_stock`` and ``release_stock``, two names that mean two things, have 0.77."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A function that a definition names and a process does not have."""

    workflow: str
    function: str
    step: str
    is_undo: bool = False
    meant: str = ""
    """The function here that was probably meant; empty: there is none like it."""
    place: str = ""
    """Where the workflow is registered, in brackets."""

    @property
    def text(self) -> str:
        """What is missing, and what that means."""
        what = f"workflow {self.workflow!r}{self.place}: no worker function here is called"
        if self.meant:
            return f"{what} {self.function!r}; did you mean {self.meant!r}?"
        return f"{what} {self.function!r}; its steps wait for a worker that has it"

    @property
    def mistake(self) -> str:
        """The same as a mistake of the definition."""
        return f"{self.absence}; did you mean {self.meant!r}?"

    @property
    def absence(self) -> str:
        """The same of modules and workers that were asked."""
        role = "compensation" if self.is_undo else "worker"
        return f"step {self.step!r}: no known function is called {self.function!r}, its {role}"


def missing(
    workflows: Iterable[Workflow],
    functions: Collection[str],
    *,
    place_of: Callable[[str], Place | None] = lambda name: None,
) -> Iterator[Missing]:
    """Each function of a workflow that is none of these, once.  Plain tasks are none."""
    for workflow in workflows:
        told: set[str] = set()
        for step in workflow.steps:
            for target, is_undo in ((step.worker, False), (step.compensation, True)):
                if not isinstance(target, str) or target in functions or target in told:
                    continue
                told.add(target)
                meant = next(iter(get_close_matches(target, functions, n=1, cutoff=ALIKE)), "")
                place = in_brackets(place_of(workflow.name))
                yield Missing(workflow.name, target, step.name, is_undo, meant, place)
