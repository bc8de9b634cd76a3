"""Which functions do definitions name that a process does not have?

A name that differs by a letter or two from one that is here is taken for a typing mistake; any
other may be that of another worker's function.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from multiagents.core.near import MISTYPED, did_you_mean, nearest
from multiagents.core.places import Place, in_brackets
from multiagents.workflows.callees import functions as named_functions
from multiagents.workflows.workflow import Workflow


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
            return f"{what} {self.function!r}; {did_you_mean(self.meant)}"
        return f"{what} {self.function!r}; its steps wait for a worker that has it"

    @property
    def mistake(self) -> str:
        """The same as a mistake of the definition."""
        return f"{self.absence}; {did_you_mean(self.meant)}"

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
    told: set[tuple[str, str]] = set()
    for each, name in named_functions(workflows):
        if name in functions or (each.workflow, name) in told:
            continue
        told.add((each.workflow, name))
        meant = nearest(name, functions, alike=MISTYPED)
        place = in_brackets(place_of(each.workflow))
        yield Missing(each.workflow, name, each.step.name, each.is_undo, meant, place)
