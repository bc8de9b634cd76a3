"""How is an operation on sagas called?

`SagaService` has a method for each operation and for each further query of the other rooms.  Each
takes signature and text from the part that does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from multiagents.core.clock import Clock
from multiagents.core.settings import Settings
from multiagents.engine.catalog import Catalog
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.repository import Repository
from multiagents.operations.actions import Actions
from multiagents.operations.attention import Attention
from multiagents.operations.dead_letters import DeadLetters
from multiagents.operations.explain.read import Explainer
from multiagents.operations.listing import Listing
from multiagents.operations.owners import Owners
from multiagents.operations.queries import Queries
from multiagents.operations.removal import Removal
from multiagents.operations.start_advice import StartAdvice
from multiagents.operations.starter import Starter, StartRules

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


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The parts of a service, each made once from what the service is given."""

    coordinator: Coordinator
    settings: Settings
    clock: Clock
    catalog: Catalog
    start_rules: StartRules

    @cached_property
    def by_class(self) -> Mapping[type, object]:
        """Every part with operations or questions of its own."""
        asked = self._owners, self._queries, self._listing, self._explainer, self._attention
        changing = self._starter, self._actions, self._removal, self._dead_letters
        return {type(part): part for part in (*asked, *changing)}

    @cached_property
    def _repository(self) -> Repository:
        return self.coordinator.repository

    @cached_property
    def _owners(self) -> Owners:
        return Owners(self._repository, settings=self.settings)

    @cached_property
    def _queries(self) -> Queries:
        return Queries(self._repository, owners=self._owners, settings=self.settings)

    @cached_property
    def _starts(self) -> StartAdvice:
        return StartAdvice(self.settings)

    @cached_property
    def _starter(self) -> Starter:
        return Starter(
            self.coordinator,
            queries=self._queries,
            starts=self._starts,
            settings=self.settings,
            catalog=self.catalog,
            rules=self.start_rules,
        )

    @cached_property
    def _listing(self) -> Listing:
        return Listing(
            self._repository,
            queries=self._queries,
            settings=self.settings,
            clock=self.clock,
            catalog=self.catalog,
        )

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(
            self._repository,
            owners=self._owners,
            queries=self._queries,
            starts=self._starts,
            settings=self.settings,
            clock=self.clock,
            catalog=self.catalog,
        )

    @cached_property
    def _actions(self) -> Actions:
        return Actions(
            self.coordinator,
            owners=self._owners,
            queries=self._queries,
            settings=self.settings,
            clock=self.clock,
        )

    @cached_property
    def _removal(self) -> Removal:
        return Removal(
            self._repository, queries=self._queries, settings=self.settings, clock=self.clock
        )

    @cached_property
    def _attention(self) -> Attention:
        return Attention(
            self._repository,
            explainer=self._explainer,
            removal=self._removal,
            settings=self.settings,
            clock=self.clock,
        )

    @cached_property
    def _dead_letters(self) -> DeadLetters:
        return DeadLetters(
            self._repository,
            owners=self._owners,
            actions=self._actions,
            settings=self.settings,
            clock=self.clock,
        )


class SagaService:
    """Starts, shows, explains and moves sagas."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        settings: Settings,
        clock: Clock,
        catalog: Catalog,
        start_rules: StartRules,
    ) -> None:
        self.parts = _Parts(
            coordinator=coordinator,
            settings=settings,
            clock=clock,
            catalog=catalog,
            start_rules=start_rules,
        ).by_class
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
