"""How is a workflow read from JSON or YAML?

The edge to files; `parse` defines the meaning of a document.  A key that appears twice in one
mapping is a mistake in both formats: the parsers would keep the last one, and silently drop a
compensation, for example.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from multiagents.core.near import did_you_mean, nearest
from multiagents.core.places import Place
from multiagents.core.texts import joined
from multiagents.workflows import registry, yaml_text
from multiagents.workflows.parse import DefinitionReading, read
from multiagents.workflows.registry import Origin
from multiagents.workflows.schema import json_schema
from multiagents.workflows.validate import refuse
from multiagents.workflows.workflow import Workflow, to_plain

__all__ = ["json_schema", "load_definition", "load_file", "load_folder", "to_plain"]

SUFFIXES = (".json", ".yaml", ".yml")


def load_definition(data: object) -> Workflow:
    """The workflow that the data (as JSON gives it) describes.

    Raises InvalidWorkflow with all mistakes together.
    """
    reading = read(data)
    if reading.workflow is None:
        raise refuse(f"workflow {reading.name!r}", reading.errors)
    return reading.workflow


def load_file(path: str | Path) -> Workflow:
    """The one workflow of a ``.json``, ``.yaml`` or ``.yml`` file.

    Raises InvalidWorkflow with all mistakes together, each with the file's name.
    """
    reading = _read_file(Path(path))
    if reading.workflow is None:
        raise refuse(str(path), reading.errors)
    return reading.workflow


def load_folder(path: str | Path) -> list[Workflow]:
    """The workflows of all definition files in a folder, by file name; no subfolders.

    Raises InvalidWorkflow with all mistakes of all files together.
    """
    return [workflow for _, workflow in _load_folder(path)]


def register_folder(path: str | Path) -> None:
    """Register the workflows of a folder's definition files, like code.

    A changed file replaces its earlier registration.  Raises InvalidWorkflow as `load_folder`
    does, and if code has registered another content under a workflow's name.
    """
    for file, workflow in _load_folder(path):
        registry.register(workflow, origin=Origin(Place(str(file), 1), reading=object()))


def _load_folder(path: str | Path) -> list[tuple[Path, Workflow]]:
    folder = Path(path)
    if not folder.is_dir():
        near = nearest(folder.name, _folders(folder.absolute().parent))
        meant = did_you_mean(str(folder.with_name(near)) if near else "")
        wrong = f"{path}: is not a folder, seen from {Path.cwd()}"
        raise refuse(str(path), [joined(wrong, meant, f"expected one with {_expected()} files")])
    found = [
        (file, _read_file(file))
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    errors = [error for _, reading in found for error in reading.errors] + _repeated(found)
    if errors:
        raise refuse(f"folder {path}", errors)
    return [(file, reading.workflow) for file, reading in found if reading.workflow is not None]


def _folders(path: Path) -> list[str]:
    return [each.name for each in path.iterdir() if each.is_dir()] if path.is_dir() else []


def _repeated(found: list[tuple[Path, DefinitionReading]]) -> list[str]:
    """Workflow names that more than one file defines."""
    first: dict[str, Path] = {}
    errors = []
    for file, reading in found:
        if reading.workflow is None:
            continue
        owner = first.setdefault(reading.name, file)
        if owner is not file:
            errors.append(f"{file.name}: {owner.name} already defines workflow {reading.name!r}")
    return errors


def _read_file(path: Path) -> DefinitionReading:
    """The file's workflow, or its mistakes, each beginning with the file's name."""
    try:
        data, bare = _parse(path)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        return DefinitionReading(
            path.name, errors=[f"{path.name}: cannot be read: {_reason(error)}"]
        )
    reading = read(data, bare=bare)
    reading.errors = [f"{path.name}: {error}" for error in reading.errors]
    return reading


def _parse(path: Path) -> tuple[object, dict[str, str]]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"unknown kind of file; expected {_expected()}")
    text = path.read_text(encoding="utf-8")
    if suffix == ".json":
        return json.loads(text, object_pairs_hook=_unique), {}
    return yaml_text.parse(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {key!r} appears twice in one object; keep one")
    return found


def _reason(error: Exception) -> str:
    """One line, with line and column if the parser gives them."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if isinstance(error, RecursionError):
        return "is nested too deep; a definition has no more than seven levels"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())


def _expected() -> str:
    return ", ".join(SUFFIXES)
