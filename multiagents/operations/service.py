"""How is an operation on sagas called?

`SagaService` is the door to the parts that do the work.  Each operation, and each further question
of the other rooms, is a method of the door with the signature and text of its part's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from multiagents.core.clock import Clock
from multiagents.core.settings import Settings
from multiagents.engine.catalog import Catalog
from multiagents.engine.coordinator import Coordinator
from multiagents.operations.actions import Actions
from multiagents.operations.attention import Attention
from multiagents.operations.dead_letters import DeadLetters
from multiagents.operations.explain.read import Explainer
from multiagents.operations.listing import Listing
from multiagents.operations.owners import Owners
from multiagents.operations.queries import Queries
from multiagents.operations.removal import Removal
from multiagents.operations.start_advice import StartAdvice
from multiagents.operations.starter import CheckInput, Starter

P = ParamSpec("P")
T = TypeVar("T")


class _Of(Generic[P, T]):
    """A method of one of the service's parts, as a method of the service."""

    def __init__(self, part: type, method: Callable[Concatenate[Any, P], T]) -> None:
        self._part = part
        self._method = method

    @overload
    def __get__(self, service: None, owner: type) -> Callable[Concatenate[Any, P], T]: ...
    @overload
    def __get__(self, service: SagaService, owner: type) -> Callable[P, T]: ...
    def __get__(self, service: SagaService | None, owner: type) -> Callable[..., T]:
        if service is None:
            return self._method
        bound: Callable[..., T] = getattr(service.parts[self._part], self._method.__name__)
        return bound


class SagaService:
    """Start, look at, explain and move sagas."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        settings: Settings,
        clock: Clock,
        catalog: Catalog,
        check_input: CheckInput,
        modules: Sequence[str] = (),
        in_process: bool = False,
        forgotten_advice: Callable[[], str] = str,
    ) -> None:
        """``modules``: the user's, imported where a name is not known.  ``in_process``: sagas run
        here, so that no worker is missed.  ``forgotten_advice``: what to do about an app that the
        program has, and has not attached; a clause, or nothing.
        """
        repository = coordinator.repository
        owners = Owners(repository, settings=settings)
        queries = Queries(repository, owners=owners, settings=settings)
        starts = StartAdvice(settings)
        actions = Actions(
            coordinator, owners=owners, queries=queries, settings=settings, clock=clock
        )
        removal = Removal(repository, queries=queries, settings=settings, clock=clock)
        explainer = Explainer(
            repository,
            owners=owners,
            queries=queries,
            starts=starts,
            settings=settings,
            clock=clock,
            catalog=catalog,
        )
        parts: tuple[object, ...] = (
            owners,
            queries,
            actions,
            removal,
            explainer,
            Starter(
                coordinator,
                queries=queries,
                starts=starts,
                settings=settings,
                catalog=catalog,
                check_input=check_input,
                modules=modules,
                in_process=in_process,
                forgotten_advice=forgotten_advice,
            ),
            Listing(repository, queries=queries, settings=settings, clock=clock, catalog=catalog),
            Attention(
                repository, explainer=explainer, removal=removal, settings=settings, clock=clock
            ),
            DeadLetters(repository, owners=owners, actions=actions, settings=settings, clock=clock),
        )
        self.parts = {type(part): part for part in parts}
        """By their class."""

    start = _Of(Starter, Starter.start)
    check_call = _Of(Starter, Starter.check_call)
    find_workflow = _Of(Starter, Starter.find_workflow)
    unknown_name = _Of(Starter, Starter.unknown_name)

    get = _Of(Queries, Queries.get)
    history = _Of(Queries, Queries.history)
    beginning = _Of(Queries, Queries.beginning)
    is_known = _Of(Queries, Queries.is_known)
    person_awaited = _Of(Queries, Queries.person_awaited)

    list = _Of(Listing, Listing.list)
    search = _Of(Listing, Listing.search)
    wanted = _Of(Listing, Listing.wanted)

    explain = _Of(Explainer, Explainer.explain)
    people = _Of(Explainer, Explainer.people)
    standing = _Of(Explainer, Explainer.standing)
    stranded = _Of(Explainer, Explainer.stranded)

    attention = _Of(Attention, Attention.attention)

    pause = _Of(Actions, Actions.pause)
    resume = _Of(Actions, Actions.resume)
    cancel = _Of(Actions, Actions.cancel)
    rollback = _Of(Actions, Actions.rollback)
    terminate = _Of(Actions, Actions.terminate)
    retry = _Of(Actions, Actions.retry)
    skip = _Of(Actions, Actions.skip)
    resolve = _Of(Actions, Actions.resolve)
    prospect = _Of(Actions, Actions.prospect)

    remove = _Of(Removal, Removal.remove)
    damaged = _Of(Removal, Removal.damaged)

    dead_letters = _Of(DeadLetters, DeadLetters.dead_letters)
    settle_dead_letters = _Of(DeadLetters, DeadLetters.settle_dead_letters)
    reindex_dead_letters = _Of(DeadLetters, DeadLetters.reindex_dead_letters)
    unlisted = _Of(DeadLetters, DeadLetters.unlisted)
