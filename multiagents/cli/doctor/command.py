"""Do the servers, workers and sagas work as they should?

Reads the data that `checks` judges, and prints the findings.  An unreachable server is a finding;
checks that do not need it run all the same.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from multiagents.cli.commands.workers import published
from multiagents.cli.errors import CommandError, one_line
from multiagents.cli.invocation import Called, called, calling, program_for
from multiagents.cli.output import Json, console, emit, table
from multiagents.cli.session import (
    Session,
    environment,
    find_app,
    load_app,
    make_runtime,
    probe,
    probe_server,
)
from multiagents.core.clock import SystemClock
from multiagents.core.exceptions import InvalidInput
from multiagents.core.settings import STATE_URLS, shown_url

if TYPE_CHECKING:
    from multiagents.cli.doctor.checks import Check
    from multiagents.hosting.runtime import Runtime
    from multiagents.storage.client import Edge
    from multiagents.workflows.workflow import Workflow

UNSETTLED = ("running", "paused", "compensating", "failed")
"""States in which sagas may wait for an operator."""
LOOKED_AT = 100
"""How many sagas of each of these states are checked, the newest first."""


App = Annotated[
    str,
    typer.Option(
        "--app",
        "-A",
        metavar="NAME",
        help="Check the settings of this Celery app, named as for `celery -A`.",
    ),
]


def doctor(app: App = "", json_output: Json = False) -> None:
    """Check the server, its settings, workers and sagas; print a fix for each finding.

    Celery's settings are those of the package's own app, unless `--app` names another. Exit code 1
    means that a check failed; warnings alone give 0.
    """
    with _calling_for(app):
        _doctor(json_output)


@contextmanager
def _calling_for(name: str) -> Iterator[None]:
    """Examine this app and advise as `celery -A NAME saga` would; empty: the one it is called for.

    Raises CommandError for one that is not there, or that has no sagas.
    """
    from multiagents.engine.launches import called_for
    from multiagents.hosting.attached import is_attached

    if not name:
        yield
        return
    app, outer = find_app(name), called()
    with calling(Called(program_for(name), app, outer.commands)) as call, called_for(name):
        if not is_attached(app):
            load_app(app, name)
        try:
            yield
        finally:
            outer.settings = call.settings  # for what is said of an error


def _doctor(json_output: bool) -> None:
    found = examine()
    failed = any(check.status == "fail" for check in found)
    if json_output:
        emit({"ok": not failed, "checks": [check.to_dict() for check in found]})
    else:
        rows = [(check.status, check.name, _finding(check)) for check in found]
        console().print(table(("", "CHECK", "FINDING"), rows))
    raise typer.Exit(int(failed))


def _finding(check: Check) -> str:
    return f"{check.message}\n→ {check.fix}" if check.fix else check.message


def examine() -> list[Check]:
    """All findings, those about the servers first."""
    from multiagents.cli.doctor import checks
    from multiagents.cli.doctor.broker import of_broker
    from multiagents.cli.doctor.checks import Check

    settings = environment()
    try:
        runtime = make_runtime(settings)
    except CommandError as error:
        return [Check("server", "fail", one_line(error), "correct MULTIAGENTS_REDIS_URL")]
    except InvalidInput as error:  # of an app that has no server for its sagas
        return [Check("server", "fail", one_line(error), "give the app's sagas a Redis")]
    if runtime.settings.state_urls:
        return _examine_servers(runtime)
    try:
        probe(runtime)
    except CommandError as error:
        named_by = runtime.settings.home.named_by
        fix = f"set {named_by} to a running server, or run `multiagents dev`"
        if called().app is not None:
            fix = f"start it, or correct {named_by}"
        return [Check("server", "fail", one_line(error), fix), *_configuration(runtime, ())]
    session = Session(runtime)
    return [
        *_server(runtime.edge),
        checks.place(runtime.settings.home),
        *of_broker(runtime.app, runtime.settings),
        *_of_sagas(session, range(runtime.settings.shards), fleet=True),
    ]


def _of_sagas(session: Session, shards: Sequence[int], *, fleet: bool) -> Iterable[Check]:
    """Findings about workers, if their server answers, and about sagas."""
    workflows: list[Workflow] = []

    def of_fleet() -> Iterable[Check]:
        workflows.extend(published(session))
        yield from _fleet(session, workflows)

    if fleet:
        yield from _or_refused("workers", of_fleet())
        yield from _or_refused("rights", _rights(session, workflows))
    yield from _or_refused("sagas", _sagas(session, shards))
    yield from _configuration(session.runtime, workflows)


def _or_refused(part: str, found: Iterable[Check]) -> Iterable[Check]:
    """These findings; if the server refuses a key, that finding, and the other parts still run."""
    from multiagents.cli.doctor import keys
    from multiagents.storage.client import UNREACHABLE, StoreError

    try:
        yield from found
    except UNREACHABLE:
        raise
    except StoreError as error:
        yield keys.refused(part, error)


def _examine_servers(runtime: Runtime) -> list[Check]:
    """All findings if the sagas are spread over several servers, of which some may be down."""
    from multiagents.cli.doctor import checks
    from multiagents.cli.doctor.broker import of_broker
    from multiagents.storage.client import Edge

    found: list[Check] = []
    offsets: dict[str, int] = {}
    for url, shards in runtime.settings.servers.items():
        clock = SystemClock()
        try:
            probe_server(url, clock, named_by=STATE_URLS)
        except CommandError as error:
            found.append(checks.silent(one_line(error), shards, runtime.settings.shards))
            continue
        offsets[url] = clock.offset_ms
        edge = Edge(url)
        found += [_about(url, check) for check in _server(edge)]
        edge.close()
    found += of_broker(runtime.app, runtime.settings)
    if len(offsets) > 1:
        found.append(checks.server_clocks(list(offsets.values())))
    if not offsets:
        return [*found, *_configuration(runtime, ())]
    probe(runtime)
    return [*found, *_examine_reached(Session(runtime), offsets)]


def _examine_reached(session: Session, reached: Container[str]) -> Iterable[Check]:
    """Findings from the servers that answer: the first one alone has workers and workflows."""
    servers = session.runtime.settings.servers
    shards = [number for url in servers if url in reached for number in servers[url]]
    yield from _of_sagas(session, shards, fleet=next(iter(servers)) in reached)


def _about(url: str, check: Check) -> Check:
    return replace(check, message=f"{shown_url(url)}: {check.message}")


def _server(edge: Edge) -> Iterable[Check]:
    from multiagents.cli.doctor import checks
    from multiagents.storage.health import read_server

    health = edge.run(read_server())
    yield checks.version(health)
    yield checks.append_only(health)
    yield checks.eviction(health)
    yield checks.memory(health)
    yield checks.snapshots(health)
    yield checks.replicas(health)


def _fleet(session: Session, workflows: list[Workflow]) -> Iterable[Check]:
    from multiagents.cli.commands.workers import known_of
    from multiagents.cli.doctor import checks, loops, workers

    runtime = session.runtime
    known = known_of(session, workflows)
    fleet = known.fleet
    skew_ms = int(getattr(runtime.clock, "offset_ms", 0))
    yield checks.clocks(skew_ms, fleet, session.now_ms)
    yield checks.heartbeats(session.run(runtime.catalog.late()))
    yield loops.loops(session.run(runtime.catalog.loops()), session.now_ms)
    yield workers.workers(known)
    yield workers.workflows(known)
    yield workers.queues(known)
    yield workers.worker_functions(known)
    yield workers.plain_tasks(known)
    yield workers.plain_calls(workflows, runtime.app.tasks)


def _sagas(session: Session, shards: Sequence[int]) -> Iterable[Check]:
    """Findings about due items on these shards, and about sagas that wait for an operator."""
    from multiagents.cli.doctor import checks, keys
    from multiagents.cli.doctor.waiting import waiting as waiting_steps
    from multiagents.storage.dead_letter_index import read_waiting
    from multiagents.storage.failures import Failing, stuck
    from multiagents.storage.health import read_due, read_missing
    from multiagents.storage.keys import Shard

    now_ms = session.now_ms
    yield checks.due(session.run(read_due(shards, now_ms)), now_ms)
    if len(shards) == session.runtime.settings.shards:  # a list needs all servers
        yield waiting_steps(session)
    waiting = session.run(read_waiting(shards))
    yield checks.attention(waiting.sagas, count=waiting.saga_count, paused=waiting.paused_count)
    yield checks.missing(session.run(read_missing(shards, each=LOOKED_AT)))
    service = session.runtime.host.service
    yield keys.damaged(session.run(service.damaged(shards, each=LOOKED_AT)))
    failing: dict[str, Failing] = {}
    for number in shards:
        counted = session.runtime.edge.execute(stuck(Shard(number)))
        failing.update(counted)
    yield keys.stuck(failing, now_ms)
    unlisted = _unlisted(session, shards)
    yield checks.dead_letters(waiting.letter_count, waiting.oldest_ms, now_ms, unlisted)


def _rights(session: Session, workflows: list[Workflow]) -> Iterable[Check]:
    """Whether queues and results can be written, if they are on the sagas' server."""
    from multiagents.cli.commands.workers import known_of
    from multiagents.cli.doctor import keys
    from multiagents.storage.client import Edge
    from multiagents.storage.rights import of_list, of_result
    from multiagents.transport.direct_publish import same_server

    app, settings = session.runtime.app, session.runtime.settings
    conf = app.conf
    lists: dict[str, str] = {}
    results: list[str] = []
    broker_url = conf.broker_write_url or conf.broker_url
    if same_server(settings, broker_url, conf.broker_transport_options, conf.broker_use_ssl):
        lists = keys.lists_of(known_of(session, workflows))
    options = conf.result_backend_transport_options
    if same_server(settings, conf.result_backend, options, conf.redis_backend_use_ssl):
        results = [_text(app.backend.get_key_for_task("doctor"))]
    edge = Edge(settings.home.url)
    try:
        looks = {f"queue {queue!r}": edge.run(of_list(key)) for key, queue in lists.items()}
        looks |= {f"result {key!r}": edge.run(of_result(key)) for key in results}
    finally:
        edge.close()
    problems = {name: why for name, why in looks.items() if why}
    yield keys.rights(problems, looked_at=len(lists) + len(results))


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


def _configuration(runtime: Runtime, workflows: Iterable[Workflow]) -> Iterable[Check]:
    from multiagents.cli.doctor import checks
    from multiagents.cli.doctor.broker import redelivery
    from multiagents.hosting.registration import homes
    from multiagents.transport.app_settings import faults

    conf = runtime.app.conf
    for fault in faults(runtime.app, homes(runtime.app)):
        yield checks.Check(fault.setting, "fail", fault.message, fault.fix)
    yield from redelivery(runtime.app, workflows)
    yield checks.result_backend(conf.result_backend)
    yield checks.serializers(conf.accept_content or ())


def _unlisted(session: Session, shards: Sequence[int]) -> list[str]:
    """A sample, from the newest: sagas that wait for an operator and that the index lacks."""
    if len(shards) < session.runtime.settings.shards:
        return []  # a list needs all servers
    service = session.runtime.host.service
    rows = [
        row for state in UNSETTLED for row in session.call("list", state=state, limit=LOOKED_AT)
    ]
    waiting = [row["transaction_id"] for row in rows if row["needs_attention"]]
    return [saga_id for saga_id in waiting if session.run(service.unlisted(saga_id))]
