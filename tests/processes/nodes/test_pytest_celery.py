"""Do sagas run in pytest-celery's world: its app as the client, real nodes, restarts?"""

from __future__ import annotations

import pytest

from multiagents import SagaFailed

pytestmark = [
    pytest.mark.processes,
    # pytest-celery's nodes open clients that they leave to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_saga_runs_on_a_node(celery_setup, sagas):
    """pytest-celery's client app starts a saga by name, without its code."""
    assert celery_setup.ready()
    assert sagas.start_saga.delay("echoes", {"text": "hi"}).get(timeout=20) == {"echo": "hi"}


def test_a_failed_saga_reaches_the_client_as_an_error(celery_setup, sagas):
    """The error survives the result backend."""
    with pytest.raises(SagaFailed) as caught:
        sagas.start_saga.delay("fails_at_two", {}).get(timeout=20)
    assert caught.value.state == "compensated"
    assert caught.value.undo["one"]["state"] == "succeeded"


def test_a_saga_started_while_no_worker_runs_goes_on_with_the_next(celery_worker, sagas):
    """A start is durable when it returns: killed workers do not lose it."""
    celery_worker.container.kill()
    result = sagas.start_saga.delay("echoes", {"text": "later"})
    celery_worker.container.restart()
    assert result.get(timeout=20) == {"echo": "later"}


def test_a_saga_outlives_a_restart_of_the_broker(celery_broker, celery_worker, sagas):
    """The server is killed with the saga's first message in it, and comes back."""
    celery_worker.container.kill()
    result = sagas.start_saga.delay("echoes", {"text": "still"})
    celery_broker.container.restart()
    celery_worker.container.restart()
    assert result.get(timeout=30) == {"echo": "still"}
