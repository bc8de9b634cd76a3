"""Which workflows exist, and is a definition valid?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiagents.cli.commands.workers import known_of, published
from multiagents.cli.errors import OK, WRONG_USE, CommandError, one_line
from multiagents.cli.invocation import called
from multiagents.cli.output import Json, console, emit, emit_each, hint, say
from multiagents.cli.rows import Rows
from multiagents.cli.session import Session, connect, environment, load_code
from multiagents.core.exceptions import NoServer
from multiagents.core.settings import Settings
from multiagents.core.texts import some_of

if TYPE_CHECKING:
    from multiagents.workflows.workflow import Workflow

Name = Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")]
SHOWN = 2
"""How many functions a note names."""
Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="JSON or YAML files of workflows, or folders."),
]


def list_(json_output: Json = False) -> None:
    """List the workflows that workers have published, and those of MULTIAGENTS_IMPORTS.

    NOTE names functions that no running worker has, and marks workflows that are not published, or
    published in another version.
    """
    session = _session()
    rows = _rows(session)
    if json_output:
        emit_each(rows)
    elif rows:
        _print(rows)
    else:
        known = known_of(session)
        say(f"no workflows are published; start a worker that registers some: {known.start()}")


def _session() -> Session:
    settings = environment()
    load_code(settings)
    return connect(settings)


def _rows(session: Session) -> list[dict[str, Any]]:
    from multiagents.engine.catalog import split
    from multiagents.workflows import registry

    known = {workflow.name: workflow for workflow in published(session)}
    versions = {name: workflow.version for name, workflow in known.items()}
    known |= registry.registered()  # a start from here would take these
    taking, _ = split(session.fleet())
    running = {name for member in taking.values() for name in member["workers"]}
    return [
        {
            "name": workflow.name,
            "version": workflow.version,
            "steps": list(workflow.by_name),
            "tags": list(workflow.tags),
            "description": workflow.description,
            "published": versions.get(workflow.name),
            "lacks": [name for name in workflow.workers if name not in running],
        }
        for _, workflow in sorted(known.items())
    ]


def _print(rows: list[dict[str, Any]]) -> None:
    cells = [
        (row["name"], row["version"], _note(row), ", ".join(row["steps"]), row["description"])
        for row in rows
    ]
    console().print(Rows(("WORKFLOW", "VERSION", "NOTE", "STEPS", "DESCRIPTION"), cells))


def _note(row: dict[str, Any]) -> str:
    notes = []
    if row["published"] != row["version"]:
        notes.append("published in another version" if row["published"] else "not published")
    if row["lacks"]:
        notes.append(f"no running worker has {some_of(row['lacks'], SHOWN)}")
    return "; ".join(notes)


def show(name: Name, json_output: Json = False) -> None:
    """Show the definition of a workflow, in the form of a file.

    The workflow is published by a worker, or registered by MULTIAGENTS_IMPORTS.
    """
    from multiagents.workflows.files import to_plain

    session = _session()
    workflow = session.run(session.runtime.host.service.find_workflow(name))
    plain = to_plain(workflow)
    if not workflow.examples and (found := session.run(session.runtime.catalog.examples(name))):
        plain["examples"] = found
    if json_output:
        emit(plain)
    else:
        say(json.dumps(plain, indent=2, ensure_ascii=False))


def validate(files: Files, json_output: Json = False) -> None:
    """Check definition files; needs no server.

    Every mistake is printed with its place, and the exit code is then 2. With MULTIAGENTS_IMPORTS,
    functions that neither those modules nor running workers have are printed, too.
    """
    read = [_read(file) for given in files for file in _expanded(given)]
    _check_functions(read)
    reports = [report for report, _ in read]
    for report in reports:
        if json_output:
            emit(report)
        else:
            _say(report)
    raise typer.Exit(OK if reports and all(report["ok"] for report in reports) else WRONG_USE)


def _expanded(path: Path) -> list[Path]:
    from multiagents.workflows.files import SUFFIXES

    if not path.is_dir():
        return [path]
    inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    return inside or [path]


def _read(file: Path) -> tuple[dict[str, Any], Workflow | None]:
    """The report about a file, and its workflow if it is valid."""
    from multiagents.core.exceptions import InvalidWorkflow
    from multiagents.workflows.files import load_file

    report: dict[str, Any] = {"file": str(file), "ok": True, "name": None, "version": None}
    report |= {"errors": [], "missing": []}
    try:
        workflow = load_file(file)
    except InvalidWorkflow as error:
        return {**report, "ok": False, "errors": list(error.errors or (str(error),))}, None
    return {**report, "name": workflow.name, "version": workflow.version}, workflow


def _check_functions(read: Sequence[tuple[dict[str, Any], Workflow | None]]) -> None:
    """Compare the functions of definitions with the known ones, if any are known."""
    from multiagents.worker_sdk.registry import workers
    from multiagents.workflows.missing_functions import missing

    settings = environment()
    if not settings.import_names and called().app is None:
        return
    with suppress(NoServer):  # a module needs a server: what it registered before is known
        load_code(settings.model_copy(update={"workflows": None}))
    lacking = [
        (report, each)
        for report, workflow in read
        if workflow is not None
        for each in missing([workflow], workers())
    ]
    running, why_not = _running(settings) if lacking else (set(), "")
    for report, each in lacking:
        if each.function in running:
            continue
        report["missing"].append(each.function)
        if each.meant:
            report["ok"] = False
            report["errors"].append(f"{report['file']}: {each.mistake}")
        else:
            hint(f"{report['file']}: {each.absence}{why_not}")


def _running(settings: Settings) -> tuple[set[str], str]:
    """The functions of running workers, or the reason why they are not known."""
    try:
        fleet = connect(settings).fleet()
    except CommandError as error:
        return set(), f"; the functions of running workers are unknown: {one_line(error)}"
    return {name for member in fleet.values() for name in member["workers"]}, ""


def _say(report: dict[str, Any]) -> None:
    if report["ok"]:
        say(f"{report['file']}: ok, workflow {report['name']!r}, version {report['version']}")
    for error in report["errors"]:
        say(error)
