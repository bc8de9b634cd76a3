"""What goes wrong in a simulated system, and how often?

Every fault is a probability: at a yield of a thread, for a message, or (`outage`, `set_back`) at a
step of the whole system.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random

ODD_ENDINGS = (":w:o:end", "{s01}", " a b ", "*?[x]", "'\"\\", "%s-%d", "é日本🦊", "x" * 200)
"""Of a saga's id: what keys, members and patterns are made of, no ASCII, and much of it."""
NOTHING_DONE = (
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "ERR Error running script: Script killed by user with SCRIPT KILL... script: f",
    "MISCONF Errors writing to the AOF file: No space left on device",
)
"""As a server says it."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How often something goes wrong."""

    die_before: float = 0.004
    """A process dies before a call it was about to make."""
    die_after: float = 0.006
    fail_before: float = 0.01
    """A call fails and was not carried out."""
    reply_lost: float = 0.02
    """A call was carried out, and fails all the same or is sent again."""
    freeze: float = 0.004
    """A process stands still, for up to a minute, and comes back late."""
    lose_message: float = 0.04
    double_message: float = 0.06
    lose_all_messages: float = 0.002
    refuse_message: float = 0.01
    """Celery can make no message of a plain task."""
    outage: float = 0.0
    """A server is away for a while."""
    set_back: float = 0.0
    """A server loses up to its last second."""
    refuse_push: float = 0.0
    """A queue takes no messages for a while, of all sagas or of one: so the server says in the
    middle of a script."""
    refuse_saga: float = 0.0
    """The server refuses whatever is asked about one saga for a while."""
    busy: float = 0.0
    """A server answers for a while that it has done nothing: to all processes, or to one."""
    ahead: float = 0.0
    """A process's clock is an hour ahead for one sweep."""
    clock_back: float = 0.0
    """The servers' clock is set back, and all processes follow it."""


NO_FAULTS = Faults(**dict.fromkeys(asdict(Faults()), 0.0))


def some_faults(rng: Random) -> Faults:
    """Faults of which some never strike and some often: they hide each other otherwise."""
    usual = {name: share for name, share in asdict(Faults()).items() if share}
    chosen = {name: share * rng.choice((0, 1, 1, 5)) for name, share in usual.items()}
    chosen["outage"] = rng.choice((0, 0, 0, 0.004))
    chosen["set_back"] = rng.choice((0, 0, 0, 0.02))
    chosen["refuse_push"] = rng.choice((0, 0, 0.02))
    chosen["refuse_saga"] = rng.choice((0, 0, 0, 0.005))
    chosen["busy"] = rng.choice((0, 0, 0.004))
    chosen["ahead"] = rng.choice((0, 0, 0, 0.02))
    chosen["clock_back"] = rng.choice((0, 0, 0, 0, 0.004))
    return Faults(**chosen)


@dataclass(frozen=True, slots=True)
class SystemShape:
    """Of what a simulated system consists."""

    shards: int = 1
    servers: int = 1
    letters: bool = False
    """Commits put messages into the broker's lists: only where there is one server."""
    plain: float = 0.0
    """How many steps are plain Celery tasks."""
    continues: bool = True
    """Processes go on with the next step; else each step is a message."""
    odd: bool = False
    """Ids and names are long, hold what keys and members are put together with, or no ASCII."""

    def __str__(self) -> str:
        parts = [f"{self.servers} servers" if self.servers > 1 else "one server"]
        parts += [f"{self.shards} shards"] if self.shards > self.servers else []
        parts += ["letters"] if self.letters else []
        parts += ["plain tasks"] if self.plain else []
        parts += ["odd names"] if self.odd else []
        return ", ".join(parts if self.continues else [*parts, "by message"])


def some_shape(rng: Random) -> SystemShape:
    """Any system."""
    shards, servers = rng.choice(((1, 1), (1, 1), (3, 1), (3, 3)))
    letters = servers == 1 and rng.random() < 0.5
    plain = rng.choice((0.0, 0.0, 0.4))
    continues = rng.random() < 0.8
    return SystemShape(shards, servers, letters, plain, continues, odd=rng.random() < 0.3)
