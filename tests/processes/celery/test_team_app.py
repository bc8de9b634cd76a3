"""Does a team's own Celery app host sagas beside its tasks, unchanged?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.processes import Worker, run_script

pytestmark = pytest.mark.processes

CLIENT = """
import json
from tests.support.team_app import app, start_saga
{body}
"""


@pytest.fixture(scope="module")
def team_worker(server) -> Iterator[Worker]:
    """A worker of the team's app, on a server of which only this module's sagas know."""
    with Worker(server.url, "-c", "2", app="tests.support.team_app") as worker:
        worker.wait_ready()
        yield worker


@pytest.fixture
def team(team_worker, server) -> str:
    """Where that worker is."""
    return server.url


def client(url: str, body: str) -> str:
    """What a client script of the team prints."""
    head = (
        "from multiagents import attach, sagas\n"
        "from tests.support import team_app\n"
        "from tests.support.team_app import *\n"
        "from multiagents import SagaFailed\n"
        "runtime = attach(app)\nstart_saga = runtime.start_saga\n"
    )
    return run_script(head + body, url)


def test_plain_tasks_are_steps_with_arguments_from_the_context(team):
    """A task of the team runs unchanged; what is no dict is stored under ``value``."""
    out = client(
        team,
        "r = start_saga.delay('team_order', {'sku': 'A1', 'amount': 3})\nprint(r.get(timeout=20))",
    )
    assert out == "{'length': 4}"


def test_a_failing_plain_task_undoes_the_plain_task_before_it(team):
    """Errors of plain tasks reach the saga by link_error, and plain tasks compensate."""
    out = client(
        team,
        "r = start_saga.delay('team_failure', {'sku': 'A1'})\n"
        "try: r.get(timeout=20)\n"
        "except SagaFailed as e: print(e.state, e.step, e.error, e.undo)",
    )
    assert out.startswith("compensated boom {'type': 'RuntimeError', 'message': 'boom', 'place': ")
    assert "'reserve': {'state': 'succeeded'" in out


def test_a_saga_is_a_link_of_a_canvas(team):
    """The task before a saga in a chain gives its input; the task behind gets its result."""
    body = (
        "from celery import chain, group, chord\n"
        "first = app.signature('team.release', args=({},))\n"
        "second = start_saga.s('team_order')\n"
        "whole = chain(start_saga.s('team_order', {'sku': 'A1', 'amount': 2}), add.s(10))\n"
        "print(whole.apply_async().get(timeout=20))\n"
        "both = chord([start_saga.s('team_order', {'sku': 'A1', 'amount': n}) for n in (1, 2)],"
        " gather.s())\n"
        "print(both.apply_async().get(timeout=20))\n"
    )
    assert client(team, body).splitlines() == ["{'sum': 14}", "2"]


def test_values_have_the_same_form_on_every_way(team):
    """Started here and by message; returned by workers and by plain tasks."""
    body = (
        "from tests.support.values import *\n"
        "by_name = app.send_task('multiagents.start_saga', ('values', GIVEN))\n"
        "ids = [start_saga.delay('values', GIVEN).id, by_name.id]\n"
        "for saga_id in ids:\n"
        "    app.AsyncResult(saga_id).get(timeout=20)\n"
        "    saga = runtime.call('get', saga_id)\n"
        "    assert saga['input'] == STORED, saga['input']\n"
        "    assert saga['step_results'] == EXPECTED, saga['step_results']\n"
        "try: start_saga.delay('values_refused', {}).get(timeout=20)\n"
        "except SagaFailed as e: print(e.error['message'].startswith(REFUSED))"
    )
    assert client(team, body) == "True"


def test_an_errback_of_a_saga_is_called_at_its_end(team):
    """``link_error`` on a start fires when the saga has failed and undone itself."""
    body = (
        "r = start_saga.apply_async(('team_failure', {'sku': 'A1'}),"
        " link_error=app.signature('team.note_error'))\n"
        "try: r.get(timeout=20)\n"
        "except SagaFailed: pass\n"
        "from tests.support.processes import wait_for\n"
        "print(wait_for(lambda: app.backend.client.get('team:error')).decode())\n"
    )
    assert "compensated: step 'boom' failed" in client(team, body)


def test_a_start_by_name_from_a_message_is_the_same_saga(team):
    """``send_task`` by name needs none of our code at the client."""
    body = (
        "r = app.send_task('multiagents.start_saga', ('team_order', {'sku': 'A1', 'amount': 3}))\n"
        "print(r.get(timeout=20))\n"
    )
    assert client(team, body) == "{'length': 4}"


def test_two_starts_with_one_key_are_one_saga(team):
    """Rule 12 and 14: the second start has its own Celery id and the first one's outcome."""
    body = (
        "a = start_saga.delay('team_order', {'sku': 'A1', 'amount': 3}, idempotency_key='k1')\n"
        "b = start_saga.delay('team_order', {'amount': 3, 'sku': 'A1'}, idempotency_key='k1')\n"
        "print(a.get(timeout=20), b.get(timeout=20), a.id != b.id)\n"
        "c = start_saga.delay('team_order', {'sku': 'C', 'amount': 3}, idempotency_key='k1',"
        " on_conflict='first')\n"
        "print(c.get(timeout=20), len(sagas_list()))\n"
    )
    prefix = (
        "sagas_list = lambda: runtime.call('list', workflow='team_order')\nn = len(sagas_list())\n"
    )
    out = client(team, prefix + body.replace("len(sagas_list())", "len(sagas_list()) - n"))
    assert out.splitlines() == ["{'length': 4} {'length': 4} True", "{'length': 4} 1"]


def test_the_teams_settings_are_left_alone(team):
    """Attaching adds tasks and a bootstep, and changes no setting."""
    out = client(
        team, "print(app.conf.task_default_queue, app.conf.task_acks_late, app.conf.timezone)"
    )
    assert out == "team True Europe/Zurich"


def test_a_worker_that_its_brokers_restart_may_end_says_so(team_worker):
    """Once, with the setting that helps: `attach` itself makes none."""
    assert team_worker.log.count("this worker may end when its broker restarts") == 1
    advice = "set broker_transport to multiagents.transport.kombu_redis:SteadyTransport"
    assert advice in team_worker.log


def test_a_plain_task_that_is_delivered_again_does_not_run_again(team):
    """E13: once its attempt has ended, a broker's redelivery is stopped before the function."""
    body = (
        "from multiagents.core import ids\n"
        "from multiagents.core.names import HEADER\n"
        "from tests.support.processes import wait_for\n"
        "r = start_saga.delay('team_count', {})\n"
        "print(r.get(timeout=20))\n"
        "task_id = ids.step_id(r.id, 'run', 'count', 1)\n"
        "mark = {HEADER: [r.id, 'run', 'count', 1, '', 0]}\n"
        "app.send_task('team.count', task_id=task_id, headers=mark)\n"
        "app.send_task('team.add', (1, 2)).get(timeout=20)\n"
        "print(app.send_task('team.count').get(timeout=20))\n"
    )
    assert client(team, body).splitlines() == ["{'value': 1}", "2"]


def test_a_start_that_a_canvas_refuses_fails_as_a_task_of_its_own(team):
    """The task before it has succeeded, and a waiter for the start gets the reason."""
    body = (
        "from multiagents import IdempotencyConflict, InvalidInput\n"
        "order = {'sku': 'A1', 'amount': 3}\n"
        "start_saga.delay('team_order', order, idempotency_key='c').get(timeout=20)\n"
        "refused = start_saga.s('team_order', idempotency_key='c')\n"
        "for before in add.s({'length': 1}, 2), start_saga.s('team_order', order):\n"
        "    r = (before | refused).apply_async()\n"
        "    try: r.get(timeout=20)\n"
        "    except IdempotencyConflict as error: print(r.parent.get(timeout=20), error)\n"
        "try: (start_saga.s('nowhere', {}) | refused).apply_async()\n"
        "except InvalidInput as error: print(error)\n"
    )
    first, second, third = client(team, body).splitlines()
    assert first.startswith("{'sum': 3} idempotency_key 'c' of workflow 'team_order' belongs to")
    assert second.startswith("{'length': 4} idempotency_key 'c' of workflow 'team_order'")
    assert third.startswith("unknown workflow 'nowhere'")


def test_maps_and_chunks_start_every_saga(team):
    """In a worker each item is a saga, and the map's result is their ids."""
    body = (
        "from tests.support.processes import wait_for\n"
        "items = [('team_order', {'sku': f'A{n}', 'amount': 3}) for n in range(3)]\n"
        "found = start_saga.starmap(items).delay().get(timeout=20)\n"
        "found += [each for part in start_saga.chunks(items, 2).group()().get(timeout=20)"
        " for each in part]\n"
        "state = lambda: {runtime.call('get', each)['state'] for each in found}\n"
        "wait_for(lambda: state() == {'completed'}, 20, 'sagas')\n"
        "print(len(set(found)), runtime.call('get', found[2])['input']['sku'])\n"
    )
    assert client(team, body) == "6 A2"


def test_every_celery_id_leads_to_the_saga(team, team_worker):
    """Ids from Flower and the log, of a worker's step and of a plain task, and of any start."""
    body = (
        "import uuid\n"
        "given, order = uuid.uuid4(), {'sku': 'A1', 'amount': 3}\n"
        "r = start_saga.apply_async(('team_order', order), task_id=given)\n"
        "r.get(timeout=20)\n"
        "named = ('multiagents.start_saga', ('team_order', order, 'n'))\n"
        "named = app.send_task(*named, task_id='a|b')\n"
        "named.get(timeout=20)\n"
        "get = lambda each: runtime.call('get', each)['transaction_id']\n"
        "steps = runtime.call('get', given)['steps']\n"
        "print(get(given) == r.id == str(given), get('a|b') != 'a|b')\n"
        "print({get(step['task_id']) for step in steps.values()} == {r.id})\n"
        "print(r.id)\n"
    )
    *found, saga_id = client(team, body).splitlines()
    assert found == ["True True", "True"]
    for line in ("team.reserve[{}:reserve:1]", "measure[{}:measure:1]"):
        assert f"Task {line.format(saga_id)} succeeded" in team_worker.log
