"""Which parts does a coordinator take?

The only place that puts the parts of this room together: over one set of settings, one clock and
one directory of workers.
"""

from __future__ import annotations

from collections.abc import Callable

from multiagents.core import ids
from multiagents.core.clock import Clock
from multiagents.core.ports import Directory
from multiagents.core.settings import Settings
from multiagents.engine.claims import Claims
from multiagents.engine.continuation import Planner
from multiagents.engine.coordinator import WIDE, Coordinator
from multiagents.engine.dispatcher import Dispatcher
from multiagents.engine.ends import Ends
from multiagents.engine.messages import AnswerOf, LetterOf, no_answer, no_letter
from multiagents.engine.plain_tasks import PlainTasks
from multiagents.engine.repository import Repository
from multiagents.engine.slots import Slots


def compose(
    *,
    settings: Settings,
    clock: Clock,
    directory: Directory,
    nonce: Callable[[], str] = ids.nonce,
    wide: int = WIDE,
    letter_of: LetterOf = no_letter,
    answer_of: AnswerOf = no_answer,
) -> Coordinator:
    """A coordinator with parts of its own.  ``wide``: see `coordinator.WIDE`."""
    repository = Repository(settings)
    claims = Claims(settings, clock, directory, nonce)
    plain = PlainTasks(clock, directory, claims, letter_of)
    dispatcher = Dispatcher(settings, clock, directory, plain, letter_of, answer_of, nonce=nonce)
    made = Coordinator(
        repository,
        claims=claims,
        slots=Slots(repository, directory=directory, claims=claims, dispatcher=dispatcher),
        dispatcher=dispatcher,
        ends=Ends(repository, dispatcher=dispatcher, clock=clock, nonce=nonce),
        planner=Planner(settings, clock, claims, dispatcher, nonce),
        clock=clock,
        wide=wide,
    )
    dispatcher.record = made.append
    return made
