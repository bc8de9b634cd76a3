"""Which settings of an app do not stop its sagas, and what is said of those that do?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu import Queue

from multiagents import SagaFailed, worker
from multiagents.core.exceptions import InvalidInput
from multiagents.core.server_urls import celery_url
from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting.registration import homes
from multiagents.hosting.runtime import attach
from multiagents.transport.app_broker import consume_all, judge
from multiagents.transport.app_settings import SettingFlaw, faults
from tests.support.celery_rig import STEADY, CeleryRig
from tests.support.command_line import cli
from tests.support.kill_rig import QUIET
from tests.support.processes import Worker

DATABASE = 13
PROTOCOL_ONE = """
from celery import Celery
from multiagents import attach
app = Celery("old", broker="redis://127.0.0.1:1/0")
app.conf.task_protocol = 1
attach(app)
"""


def made(**conf: object) -> Celery:
    """An app of a team, which connects to nothing."""
    app = Celery("team", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(conf)
    return app


# ---- refused ----


def test_message_protocol_1_is_refused_where_sagas_are_attached() -> None:
    """Its messages have no headers: a plain task's would be claimed and never sent."""
    with pytest.raises(InvalidInput, match=r"app 'team': .* set task_protocol = 2"):
        attach(made(task_protocol=1))


def test_a_worker_of_an_app_that_was_changed_later_does_not_start() -> None:
    """The start of a worker checks settings that `attach` has not seen."""
    app = made()
    attach(app)
    judge(app, homes(app))
    app.conf.task_protocol = 1
    with pytest.raises(InvalidInput, match="set task_protocol = 2"):
        judge(app, homes(app))


def test_doctor_tells_of_message_protocol_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app's own module cannot attach it."""
    (tmp_path / "protocol_one.py").write_text(PROTOCOL_ONE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    done = cli("doctor", "-A", "protocol_one", url="redis://127.0.0.1:1/0")
    assert done.code != 0
    assert "set task_protocol = 2" in done.out + done.err


# ---- told ----


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({"broker_url": "redis://h/0?ssl_cert_reqs=none&heartbeat=3"}, []),
        ({"broker_url": "amqp://h//?protocol=3"}, []),
        ({"broker_url": "redis+socket:///s?virtual_host=1"}, []),
        ({"broker_url": "redis://h/0?protocol=3"}, [("broker_url", "broker_transport_options")]),
        ({"broker_url": "redis://a/0;redis://h/0?x=1"}, [("broker_url", "leave it out")]),
        ({"broker_read_url": ["rediss://h/0?socket_timeout=1"]}, [("broker_read_url", "leave")]),
        ({"broker_url": "unix:///tmp/s.sock"}, [("broker_url", "redis+socket:///PATH")]),
        ({"result_backend": "unix:///tmp/s.sock"}, [("result_backend", "redis+socket:///PATH")]),
        ({"task_create_missing_queues": False}, [("task_queues", "Queue('gpu')")]),
        ({"task_create_missing_queues": False, "task_queues": [Queue("gpu"), Queue("io")]}, []),
    ],
)
def test_a_setting_that_does_not_work_is_told_with_what_to_write(
    conf: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    """Read from the app as it is; ``gpu`` is where a worker's steps go."""
    app = made(**conf)
    attach(app)
    found: list[SettingFlaw] = list(faults(app, {"io", "gpu"}))
    assert [fault.setting for fault in found] == [setting for setting, _ in expected]
    for fault, (_, fix) in zip(found, expected, strict=True):
        assert fix in fault.fix


def test_a_worker_names_the_url_of_which_celery_would_die() -> None:
    """Before Celery does, with an error that names no setting."""
    app = made(broker_url="redis://h/0?protocol=3")
    attach(app)
    with pytest.raises(ImproperlyConfigured, match=r"broker_url: .* option protocol"):
        judge(app, homes(app))


def test_a_worker_names_the_queues_that_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    """The worker starts, and it serves its other queues."""
    app = made(task_create_missing_queues=False)
    attach(app)
    worker("as_engraves", queue="as_engravers")(lambda context: {})
    judge(app, homes(app))
    assert "Queue('as_engravers')" in capsys.readouterr().out


def test_doctor_judges_the_settings_of_a_named_app(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL of which its workers die is a failed check."""
    (tmp_path / "bad_broker.py").write_text(
        "from celery import Celery\n"
        "from multiagents import attach\n"
        "app = Celery('bad', broker='redis://127.0.0.1:1/0?protocol=3', set_as_current=False)\n"
        "attach(app)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    checks = cli("doctor", "-A", "bad_broker", "--json", url=redis_url).json["checks"]
    found = [check for check in checks if check["name"] == "broker_url"]
    assert [check["status"] for check in found] == ["fail"]
    assert "broker_transport_options" in found[0]["fix"]


# ---- made to work ----


@pytest.mark.parametrize("read_before", [False, True])
def test_an_app_that_makes_no_queues_knows_the_engines_own(read_before: bool) -> None:
    """A worker without ``-Q`` consumes `io` beside the app's; whenever the queues were read."""
    app = made(task_create_missing_queues=False, task_queues=[Queue("team")])
    if read_before:
        assert set(app.amqp.queues) == {"team"}
    attach(app)
    consume_all(app, [])
    assert set(app.amqp.queues.consume_from) == {"team", "io"}


@pytest.fixture(scope="module")
def rig(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryRig]:
    """A client whose results come by messages."""
    rig = CeleryRig(server.url, DATABASE, tmp_path_factory.mktemp("settings"))
    rig.app.conf.result_backend = "rpc://"
    yield rig
    rig.close()


@pytest.mark.processes
def test_outcomes_come_by_message_where_the_result_backend_is_rpc(rig: CeleryRig) -> None:
    """To the caller of each start: of `delay`, of a message by name, of a second start.

    The worker's app makes no missing queues, and has no ``-Q``.
    """
    conf = json.dumps({"task_create_missing_queues": False, "broker_transport": STEADY})
    env = {**rig._env, "TEAM_CONF": conf, "TEAM_BACKEND": "rpc://"}
    start = rig.runtime.start_saga
    with Worker(
        celery_url(rig.url),
        *QUIET,
        *("-c", "2"),
        imports="tests.support.kill_workers",
        env=env,
        app="tests.support.celery_team",
    ) as running:
        running.wait_ready()
        assert start.delay("kp_completes", {}).get(timeout=20) == {"two": 1}
        with pytest.raises(SagaFailed):
            start.delay("kp_breaks", {}).get(timeout=20)
        by_name = rig.app.send_task("multiagents.start_saga", ("kp_completes", {}))
        assert by_name.get(timeout=20) == {"two": 1}
        for _ in range(2):
            again = start.delay("kp_completes", {}, idempotency_key="once")
            assert again.get(timeout=20) == {"two": 1}
