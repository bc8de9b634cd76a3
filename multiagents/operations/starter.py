"""How does a saga start?

A start finds its workflow and the workers of its steps, checks the input, and is recorded; then
it is durable.  A mistake is refused before anything is stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from multiagents.core import ids, user_modules
from multiagents.core.exceptions import (
    IdempotencyConflict,
    InvalidInput,
    UnknownWorker,
    UnknownWorkflow,
)
from multiagents.core.input_digest import FIRST, REFUSE, differing, digest_of
from multiagents.core.json_text import dumps
from multiagents.core.near import near
from multiagents.core.settings import Settings
from multiagents.core.texts import joined, some_of
from multiagents.engine import launches
from multiagents.engine.catalog import Catalog
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.headers import META, checked
from multiagents.operations.queries import Queries
from multiagents.operations.start_advice import StartAdvice
from multiagents.storage import sagas as store
from multiagents.workflows import registry
from multiagents.workflows.workflow import Workflow

SHOWN, MOST_SHOWN = 4, 40
"""How many keys of an input a message names, and how many characters of each."""

CheckInput = Callable[[Any, int], str]
"""Returns an input as JSON.  Raises InvalidInput for one that no saga can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRules:
    """What a start depends on in the process that starts sagas."""

    check_input: CheckInput
    modules: Sequence[str] = ()
    """The user's modules, imported if a name is unknown."""
    in_process: bool = False
    """Sagas run in this process, so a start needs no worker."""
    forgotten_advice: Callable[[], str] = str
    """The advice for an app of the program that is not attached: a clause, or "" without one."""


class Starter:
    """Starts sagas."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        queries: Queries,
        starts: StartAdvice,
        settings: Settings,
        catalog: Catalog,
        rules: StartRules,
    ) -> None:
        self._coordinator = coordinator
        self._queries = queries
        self._starts = starts
        self._settings = settings
        self._catalog = catalog
        self._rules = rules

    async def start(
        self,
        workflow: str | Workflow,
        input: dict[str, Any] | None = None,  # noqa: A002 - the public name of the argument
        *,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        tags: Sequence[str] = (),
        on_conflict: str = REFUSE,
        task_id: str | None = None,
        canvas: dict[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """Start a saga and return its id; the saga is durable when this returns.

        With an ``idempotency_key`` the first start of a workflow counts, and later starts return
        its saga's id.  A later start with another input raises IdempotencyConflict; with
        ``on_conflict="first"`` it returns the first saga, too.  ``headers``: Celery headers that
        the messages of all its steps carry.  Raises UnknownWorkflow, UnknownWorker or InvalidInput
        before anything is stored.
        """
        text = self.check_call(
            input=input, idempotency_key=idempotency_key, on_conflict=on_conflict, task_id=task_id
        )
        task_id = None if task_id is None else ids.checked_id(task_id)
        found = await self.find_workflow(workflow)
        about = {
            "correlation_id": _correlation_id(correlation_id),
            "tags": list(dict.fromkeys([*found.tags, *tags])),
            "idempotency_key": idempotency_key,
            META: checked(headers),
        }
        meta = _meta({name: value for name, value in about.items() if value})
        data = {"input": text, "meta": meta}
        if idempotency_key is not None:
            data[store.DIGEST] = digest_of(text)
        saga_id = _saga_id(found, idempotency_key, task_id)
        await self._check_workers(found, saga_id)
        record = partial(
            self._coordinator.start,
            found,
            saga_id=saga_id,
            waiting=(task_id or saga_id, json.dumps(canvas) if canvas else ""),
            data=data,
            tags=tuple(tags),
        )
        digest = data.get(store.DIGEST, "") if on_conflict == REFUSE else ""
        if await record(digest=digest) == store.OTHER_INPUT:
            await self._check_same(saga_id, text, f"{found.name!r}", idempotency_key)
            await record()
        return saga_id

    def check_call(
        self,
        workflow: str | Workflow = "",
        input: Any = None,  # noqa: A002 - the public name of the argument
        *,
        idempotency_key: str | None = None,
        on_conflict: str = REFUSE,
        task_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """The input as JSON.  Raises InvalidInput for arguments of no start; calls no server."""
        text = self._rules.check_input(
            {} if input is None else input, self._settings.max_input_bytes
        )
        if task_id is not None:
            ids.checked_id(task_id)
        if idempotency_key is not None:
            _check_key(idempotency_key)
        _check_conflict(on_conflict)
        checked(headers)
        return text

    async def _check_same(self, saga_id: str, text: str, workflow: str, key: str | None) -> None:
        """Raise IdempotencyConflict if the inputs differ: an earlier version stored no digest."""
        [first] = await store.some_data(self._coordinator.repository.keys(saga_id), ("input",))
        if first is None or digest_of(first) == digest_of(text):
            return  # None: its retention has just ended
        raise IdempotencyConflict(
            f"idempotency_key {key!r} of workflow {workflow} belongs to saga {saga_id}, which was"
            f" started with another input ({_some(differing(first, text))}); start with the same"
            ' input, or under another key, or with on_conflict="first" (--on-conflict first) to be'
            " given that saga",
            saga_id,
        )

    async def find_workflow(self, workflow: str | Workflow) -> Workflow:
        """The definition of a name, registered here or published by a worker.

        Without one, the modules of MULTIAGENTS_IMPORTS are imported, which may register it.
        Raises InvalidInput if an import fails, and UnknownWorkflow if nothing registers the name.
        """
        if isinstance(workflow, Workflow):
            return workflow
        local = registry.find(workflow)
        if local is not None:
            return local
        published = await self._catalog.workflow(workflow)
        if published is None:
            user_modules.load(self._rules.modules)
            published = registry.find(workflow)
        if published is None:
            raise await self._unknown_workflow(workflow)
        return published

    async def unknown_name(self, name: str) -> str:
        """The text about a name that no workflow has; empty for a known name."""
        names = await self._workflow_names()
        return "" if name in names else unknown("workflow", name, names)

    async def _workflow_names(self) -> list[str]:
        return sorted({*registry.registered(), *await self._catalog.workflow_names()})

    async def _unknown_workflow(self, name: str) -> UnknownWorkflow:
        problem = unknown("workflow", name, await self._workflow_names())
        built, begun = registry.built_only(name), registry.begun_only(name)
        if built is not None or begun is not None:
            problem = f"unknown workflow {name!r}"
            fix = f"it is built ({built}) but not registered: call .register() on it"
            if built is None:
                fix = f"its builder ({begun}) is not built: call .build().register() on it"
        elif self._rules.in_process:
            fix = "import the module that registers it"
        elif await self._catalog.fleet():
            fix = joined("a worker publishes what its modules register", self._server_asked())
        else:
            fix = joined(await self._how_to_publish(), self._server_asked())
        return UnknownWorkflow(joined(problem, fix))

    def _server_asked(self) -> str:
        """The clause that names the server searched; workers of another one are unknown here."""
        return f"the server asked is {self._settings.home}"

    async def _how_to_publish(self) -> str:
        start = await self._starts.start_command()
        known = await self._starts.launches()
        dev = ", or all that it takes with `multiagents dev`" if launches.has_dev(known) else ""
        return (
            "no worker runs that could publish it: start one that imports its module, with"
            f" `{start}`{dev}{self._rules.forgotten_advice()}"
        )

    async def _check_workers(self, workflow: Workflow, saga_id: str) -> None:
        missing = await self._catalog.missing(set(workflow.workers))
        if missing:
            user_modules.load(self._rules.modules)
            missing = await self._catalog.missing(set(workflow.workers))
        # A second start under a key joins a saga that exists already.
        if missing and not await self._queries.is_known(saga_id):
            raise await self._unable(workflow, sorted(missing))

    async def _unable(self, workflow: Workflow, missing: Sequence[str]) -> UnknownWorker:
        """The error of a start with functions that no running worker has."""
        known = await self._catalog.worker_names()
        start = await self._starts.start_command(missing)
        cannot = f"workflow {workflow.name!r} cannot run"
        fix = f"start a worker that has it (`{start}`), or use task(...) for a plain Celery task"
        if self._rules.in_process:
            problems = [unknown("worker", name, known) for name in missing]
            return UnknownWorker(joined(f"{cannot}: {joined(*problems)}", fix))
        there, asked = self._catalog.takers, self._server_asked()
        if not there:
            needed = some_of(map(repr, missing), SHOWN)
            why = f"no worker is running for {needed}; start one: `{start}`"
            return UnknownWorker(joined(f"{cannot}: {why}", asked))
        known_launches = await self._starts.launches()
        launch = launches.launch_for(known_launches, missing, self._settings.import_names)
        if launches.is_running(launch, there):
            fix = launches.MEND
        problems = [lacking(sorted(there), name, known) for name in missing]
        return UnknownWorker(joined(f"{cannot}: {joined(*problems)}", fix, asked))


def _meta(about: dict[str, Any]) -> str:
    """The metadata of a start as JSON, which every step reads.  Raises InvalidInput."""
    try:
        return dumps(about)
    except ValueError as error:
        names = " or ".join(about)
        raise InvalidInput(f"{names} cannot be stored: {error}; clean the text") from error


def _saga_id(workflow: Workflow, key: str | None, task_id: str | None) -> str:
    if key is None:
        return task_id or ids.fresh_id()
    return ids.derived_id(workflow.name, key)


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not 0 < len(key) <= ids.MAX_KEY or not ids.is_encodable(key):
        raise InvalidInput(
            f"idempotency_key is {key!a}: expected text of 1 to {ids.MAX_KEY} characters"
        )


def _check_conflict(word: str) -> None:
    if word not in (REFUSE, FIRST):
        raise InvalidInput(f"on_conflict is {word!r}; expected {REFUSE!r} or {FIRST!r}")


def _correlation_id(value: object) -> str | None:
    text = ids.as_text(value)
    if value is not None and (text is None or not ids.is_encodable(text)):
        raise InvalidInput(f"correlation_id is {value!a}: expected text, a UUID or an int")
    return text


def _some(names: Sequence[str]) -> str:
    return f"other: {some_of((ascii(name[:MOST_SHOWN]) for name in names), SHOWN)}"


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """The text about an unknown name, with similar names or else all known ones."""
    return f"unknown {what} {name!r}; {_hint(name, known)}"


def lacking(hosts: Sequence[str], name: str, known: Sequence[str]) -> str:
    """The text about a function that no worker has, with the running workers."""
    who = f"worker {hosts[0]} lacks"
    if len(hosts) > 1:
        who = f"workers {some_of(hosts, SHOWN)} lack"
    return f"{who} {name!r}; {_hint(name, known)}"


def _hint(name: str, known: Sequence[str]) -> str:
    close = near(name, known, most=3)
    return f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
