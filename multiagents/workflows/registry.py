"""Which workflows does this process know by name?

``register(workflow)`` fills the registry at import time.  A worker reads it to publish its
definitions, and a start by name reads it.  A name means one definition: the order of imports must
not choose between two, so `register` refuses the second.  The registry ends with the process and
is not checked against other processes: a running saga is pinned to its version (rule 9).

The registry also remembers workflows that were built but not registered, as long as they exist.  So
an error about an unknown name can point to them.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiagents.core.exceptions import InvalidWorkflow
from multiagents.core.places import MODULE, Place, at, calling, imports
from multiagents.workflows.validate import check, refuse

if TYPE_CHECKING:
    from multiagents.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a definition."""

    place: Place | None
    """The line that registered or built it; a file of its own has line 1."""
    reading: object = None
    """An object that is new each time the file is read, such as a module's code.

    None if the line is in a function, which may be called many times.
    """

    def is_reload_of(self, other: Origin) -> bool:
        """Whether the same file was read again, or a console or notebook continues."""
        read = self.reading, other.reading
        if None in read or read[0] is read[1] or self.place is None or other.place is None:
            return False
        files = self.place.file, other.place.file
        return files[0] == files[1] or not any(map(os.path.exists, files))


@dataclass(frozen=True, slots=True)
class _Known:
    workflow: Workflow
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Built:
    kept: weakref.ref[object]
    """The workflow, or the builder of one."""
    name: str
    place: Place | None
    at_import: bool


_known: dict[str, _Known] = {}
_built: dict[int, _Built] = {}
"""By the id of the workflow; the entry is removed when the workflow is garbage-collected."""
_begun: dict[int, _Built] = {}
"""The same by the id of a builder whose ``build`` was never called."""
_scratch: list[dict[str, _Known | None]] = []
"""For each open `scratch`, the earlier registrations of the names that it replaced."""


def register(
    workflow: Workflow, *, replace: bool = False, origin: Origin | None = None
) -> Workflow:
    """Make the workflow startable by name, and return it.

    The same content may be registered again, and so may a module that is read again.  Raises
    InvalidWorkflow, naming both places, for another content under a taken name, unless
    ``replace``.  Also raises it if the workflow has mistakes, so that no worker publishes a broken
    definition.
    """
    errors = check(workflow)
    if errors:
        raise refuse(f"workflow {workflow.name!r}", errors)
    known = _known.get(workflow.name)
    origin = origin or _origin_here()
    if known is not None and known.workflow.version != workflow.version:
        if not (replace or origin.is_reload_of(known.origin) or _scratch):
            raise _taken(workflow.name, known.origin, origin)
        if _scratch:
            _scratch[-1].setdefault(workflow.name, known)
    _known[workflow.name] = _Known(workflow, origin)
    return workflow


def registered() -> dict[str, Workflow]:
    """The workflows by name, in the order of their first registration; a copy."""
    return {name: known.workflow for name, known in _known.items()}


def find(name: str) -> Workflow | None:
    """The workflow of that name; None if this process has none."""
    known = _known.get(name)
    return None if known is None else known.workflow


def place_of(name: str) -> Place | None:
    """The line that registered the workflow of that name; None if it is not known."""
    known = _known.get(name)
    return None if known is None else known.origin.place


def forget(name: str) -> None:
    """Remove the workflow, if it is registered; running sagas keep their definition."""
    _known.pop(name, None)


@contextmanager
def scratch() -> Iterator[None]:
    """In the block, a name may be registered again; afterwards its earlier workflow is back.

    A name that is registered for the first time in the block stays: a module is imported once.
    """
    before: dict[str, _Known | None] = {}
    _scratch.append(before)
    try:
        yield
    finally:
        _scratch.remove(before)
        _known.update({name: known for name, known in before.items() if known is not None})


def note_built(workflow: Workflow) -> None:
    """Remember where a workflow was built, as long as it exists."""
    _note(_built, workflow, workflow.name)


def note_begun(builder: object, name: str) -> None:
    """Remember where a builder was made, until `note_ended` or the end of the builder."""
    _note(_begun, builder, name)


def note_ended(builder: object) -> None:
    """Forget a builder, because its ``build`` was called."""
    _begun.pop(id(builder), None)


def _note(notes: dict[int, _Built], kept: object, name: str) -> None:
    frame, key = calling(), id(kept)
    ref = weakref.ref(kept, lambda _: notes.pop(key, None))
    notes[key] = _Built(ref, name, at(frame), imports(frame))


def built_only(name: str) -> Place | None:
    """Where an unregistered workflow of that name was built; None if there is none."""
    return _last_of(_built, name)


def begun_only(name: str) -> Place | None:
    """Where a builder of that name was made and never built; None if there is none."""
    return _last_of(_begun, name)


def _last_of(notes: dict[int, _Built], name: str) -> Place | None:
    found = [each for each in _unregistered(notes) if each.name == name]
    return found[-1].place if found else None


def forgotten() -> dict[str, Place | None]:
    """By name, where modules built workflows at their import and never registered them."""
    return {each.name: each.place for each in _unregistered(_built) if each.at_import}


def unbuilt() -> dict[str, Place | None]:
    """By name, where modules made builders at their import and never called ``build``."""
    return {each.name: each.place for each in _unregistered(_begun) if each.at_import}


def _unregistered(notes: dict[int, _Built]) -> list[_Built]:
    return [each for each in list(notes.values()) if each.name not in _known]


def _origin_here() -> Origin:
    frame = calling()
    of_module = frame is not None and frame.f_code.co_name == MODULE
    return Origin(at(frame), frame.f_code if frame is not None and of_module else None)


def _taken(name: str, first: Origin, second: Origin) -> InvalidWorkflow:
    places = f"{first.place or 'its first registration'} and {second.place or 'here'}"
    message = (
        f"two different workflows are registered as {name!r}: {places}; give one of them another"
        " name, or replace the first: register(replace=True)"
    )
    return InvalidWorkflow(message, (message,))
