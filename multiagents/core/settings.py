"""Which settings does the environment have?

Every setting is read once, on first use, from ``MULTIAGENTS_<NAME>``; an import reads none.
Celery's own settings are in celeryconfig.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from multiagents.core import sentinel
from multiagents.core.exceptions import InvalidInput
from multiagents.core.server_urls import check
from multiagents.core.server_urls import shown_url as shown_url

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
REDIS_URL, STATE_URLS = "MULTIAGENTS_REDIS_URL", "MULTIAGENTS_STATE_URLS"
"""The variables that may name a server."""


@dataclass(frozen=True, slots=True)
class Home:
    """The server of the sagas, the first one if there are several."""

    url: str
    named_by: str
    """The variable or other source of the URL."""
    flaw: str = ""
    """A warning for its users."""

    def __str__(self) -> str:
        return f"{shown_url(self.url)}, named by {self.named_by}"


class Settings(BaseSettings):
    """The engine's settings; each is the environment variable ``MULTIAGENTS_<NAME>``."""

    model_config = SettingsConfigDict(
        env_prefix="MULTIAGENTS_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # URLs hold passwords
    )

    redis_url: str = DEFAULT_REDIS_URL
    """Broker and results; the sagas too, unless ``state_urls`` names their servers.

    If neither is set, `attach` keeps an app's sagas on the app's own Redis.
    """
    state_urls: str = ""
    """Servers of the sagas, comma-separated: shard n is on number n modulo their count."""
    imports: str = ""
    """Modules with workers and workflows, comma-separated; imported by every worker process."""
    workflows: Path | None = None
    """A folder of JSON or YAML workflow definitions, registered like code."""
    lease_s: Annotated[float, Field(ge=0.5, le=3600)] = 15.0
    """A running step without a heartbeat for this time counts as lost."""
    retention_s: Annotated[float, Field(ge=0)] = 7 * 86_400.0
    """A finished saga is kept for this time after its last dead letter was closed."""
    max_input_bytes: Annotated[int, Field(ge=2)] = 256 * 1024
    """JSON size of a saga's input."""
    max_result_bytes: Annotated[int, Field(ge=2)] = 1024 * 1024
    """JSON size of one step's result."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """The number of shards for sagas; never change it on a server with sagas.

    At least one for each of ``state_urls``; if they are set, their number is the default.
    """
    continuation: bool = True
    """Run the next step in the same process when it is the only one and its queue is the same."""
    slice_s: Annotated[float, Field(ge=0)] = 1.0
    """How long one delivery may continue with next steps before other sagas get their turn."""
    slice_steps: Annotated[int, Field(ge=1)] = 100
    """How many steps one delivery may run."""
    sweep_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    """The longest pause between two sweeps; a due item starts at most this late."""
    operator: str = ""
    """The author of actions without one, in a saga's history; unset: the system's user."""
    lm: str | None = None
    """The language model of @dspy_worker, by DSPy's name: ``gemini/gemini-2.5-flash``."""
    lm_api_base: str | None = None
    """The address of ``lm`` instead of its provider: a gateway, a local server, a stub."""
    redis_server: Path | None = None
    """The binary for the embedded server, instead of the one that is found."""
    data_dir: Path = Path(".multiagents")
    """The folder for the embedded server's data."""
    _find: Callable[[], Home] | None = PrivateAttr(default=None)
    """Finds the server of the sagas, instead of the two variables."""

    @model_validator(mode="after")
    def _spread(self) -> Self:
        """Raises InvalidInput for an invalid URL, and for a server without a shard."""
        check_named(REDIS_URL, self.redis_url)
        urls = _urls(self.state_urls)
        for number, url in enumerate(urls, start=1):
            check_named(f"{STATE_URLS}, number {number} of {len(urls)}", url)
        if self.shards < len(urls) and "shards" not in self.model_fields_set:
            object.__setattr__(self, "shards", len(urls))
        elif self.shards < len(urls):
            raise InvalidInput(
                f"MULTIAGENTS_SHARDS is {self.shards}, but MULTIAGENTS_STATE_URLS names"
                f" {len(urls)} servers, which need a shard each: set it to {len(urls)} or more, or"
                " name fewer servers"
            )
        return self

    def at(self, redis_url: str, *, named_by: str = "the server's URL") -> Self:
        """The settings with everything on that one server, for a face with its own URL.

        Raises InvalidInput for an unusable URL.
        """
        check_named(named_by, redis_url)
        changed: dict[str, object] = {"redis_url": redis_url, "state_urls": ""}
        if "shards" not in self.model_fields_set:
            changed["shards"] = type(self).model_fields["shards"].default
        return self.model_copy(update=changed).found_by(lambda: Home(redis_url, named_by))

    def found_by(self, find: Callable[[], Home]) -> Self:
        """The settings with the sagas on the server from ``find``, which is called on demand."""
        found = self.model_copy()
        found._find = find
        return found

    @property
    def names_a_server(self) -> bool:
        """Whether the environment, or the maker of these settings, names the sagas' server."""
        return self._find is not None or bool(
            self.state_urls or "redis_url" in self.model_fields_set
        )

    @property
    def home(self) -> Home:
        """The server of the sagas.  Raises InvalidInput if an app should name it and does not."""
        if self._find is not None:
            return self._find()
        urls = _urls(self.state_urls)
        return Home(urls[0], STATE_URLS) if urls else Home(self.redis_url, REDIS_URL)

    @property
    def servers(self) -> dict[str, tuple[int, ...]]:
        """For the URL of each server of the sagas, in order, the shards on it."""
        urls = _urls(self.state_urls) or (self.home.url,)
        homes = [urls[number % len(urls)] for number in range(self.shards)]
        return {
            url: tuple(number for number, home in enumerate(homes) if home == url) for url in homes
        }

    @property
    def lease_ms(self) -> int:
        return round(self.lease_s * 1000)

    @property
    def retention_ms(self) -> int:
        return round(self.retention_s * 1000)

    @property
    def import_names(self) -> tuple[str, ...]:
        return _listed(self.imports)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _urls(text: str) -> tuple[str, ...]:
    """The URLs of a list; commas also separate the hosts in a URL of Sentinels."""
    found: list[str] = []
    for part in _listed(text):
        if found and "://" not in part and sentinel.is_sentinel(found[-1]):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return tuple(found)


def check_named(name: str, url: str) -> None:
    """Raise InvalidInput with the source of a wrong URL, and what to write instead."""
    try:
        check(url)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error}") from error


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process.  Raises InvalidInput, which names the wrong variable."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(map(_wrong, error.errors()))
        raise InvalidInput(f"bad settings: {wrong}") from error


def _wrong(item: ErrorDetails) -> str:
    if not item["loc"]:  # about several variables, which the message names
        return str(item.get("ctx", {}).get("error", item["msg"]))
    return f"MULTIAGENTS_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
