"""Which functions do definitions name that a process does not have?

A name that differs by a letter or two from a local function counts as a typing mistake; any other
name may be a function of another worker.  Pure.
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
    """The function here that was probably meant; empty if none is similar."""
    place: str = ""
    """Where the workflow is registered, in brackets."""

    @property
    def text(self) -> str:
        """The missing function, and the consequence."""
        what = f"workflow {self.workflow!r}{self.place}: no worker function here is called"
        if self.meant:
            return f"{what} {self.function!r}; {did_you_mean(self.meant)}"
        return f"{what} {self.function!r}; its steps wait for a worker that has it"

    @property
    def mistake(self) -> str:
        """The text for a list of the definition's mistakes."""
        return f"{self.absence}; {did_you_mean(self.meant)}"

    @property
    def absence(self) -> str:
        """The text where known modules and workers were searched."""
        role = "compensation" if self.is_undo else "worker"
        return f"step {self.step!r}: no known function is called {self.function!r}, its {role}"


def missing(
    workflows: Iterable[Workflow],
    functions: Collection[str],
    *,
    place_of: Callable[[str], Place | None] = lambda name: None,
) -> Iterator[Missing]:
    """Each worker function that a workflow names and ``functions`` lacks, once; no plain tasks."""
    told: set[tuple[str, str]] = set()
    for each, name in named_functions(workflows):
        if name in functions or (each.workflow, name) in told:
            continue
        told.add((each.workflow, name))
        meant = nearest(name, functions, alike=MISTYPED)
        place = in_brackets(place_of(each.workflow))
        yield Missing(each.workflow, name, each.step.name, each.is_undo, meant, place)
