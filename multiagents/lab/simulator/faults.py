"""Which faults strike in a simulated system, and how often?

Each fault is a probability: per yield of a thread, per message, or (`outage`, `set_back`) per step
of the whole system.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random

ODD_ENDINGS = (":w:o:end", "{s01}", " a b ", "*?[x]", "'\"\\", "%s-%d", "é日本🦊", "x" * 200)
"""Endings of a saga's id: parts of keys, members and patterns; non-ASCII text; a long one."""
NOTHING_DONE = (
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "ERR Error running script: Script killed by user with SCRIPT KILL... script: f",
    "MISCONF Errors writing to the AOF file: No space left on device",
)
"""Answers of a server that has done nothing."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The probability of each fault."""

    die_before: float = 0.004
    """A process dies just before a call."""
    die_after: float = 0.006
    fail_before: float = 0.01
    """A call fails without effect."""
    reply_lost: float = 0.02
    """A call takes effect, but fails or is sent again."""
    freeze: float = 0.004
    """A process freezes for up to a minute, and continues late."""
    lose_message: float = 0.04
    double_message: float = 0.06
    lose_all_messages: float = 0.002
    refuse_message: float = 0.01
    """Celery cannot make a message for a plain task."""
    outage: float = 0.0
    """A server is away for a while."""
    set_back: float = 0.0
    """A server loses up to its last second."""
    refuse_push: float = 0.0
    """For a while the server refuses a queue, or one saga's messages, in the middle of a script."""
    refuse_saga: float = 0.0
    """For a while the server refuses all calls about one saga."""
    busy: float = 0.0
    """For a while a server answers that it has done nothing, to all processes or to one."""
    ahead: float = 0.0
    """A process's clock is an hour ahead for one sweep."""
    clock_back: float = 0.0
    """The servers' clock is set back, and all processes follow it."""


NO_FAULTS = Faults(**dict.fromkeys(asdict(Faults()), 0.0))


def some_faults(rng: Random) -> Faults:
    """Random faults: some never strike and some strike often, because faults hide each other."""
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
    """The parts of a simulated system."""

    shards: int = 1
    servers: int = 1
    letters: bool = False
    """Commits put messages into the broker's lists, which needs a single server."""
    plain: float = 0.0
    """The share of steps that are plain Celery tasks."""
    continues: bool = True
    """Processes continue with the next step; otherwise each step is a message."""
    odd: bool = False
    """Ids and names are long, contain the separators of keys and members, or are not ASCII."""

    def __str__(self) -> str:
        parts = [f"{self.servers} servers" if self.servers > 1 else "one server"]
        parts += [f"{self.shards} shards"] if self.shards > self.servers else []
        parts += ["letters"] if self.letters else []
        parts += ["plain tasks"] if self.plain else []
        parts += ["odd names"] if self.odd else []
        return ", ".join(parts if self.continues else [*parts, "by message"])


def some_shape(rng: Random) -> SystemShape:
    """A random system."""
    shards, servers = rng.choice(((1, 1), (1, 1), (3, 1), (3, 3)))
    letters = servers == 1 and rng.random() < 0.5
    plain = rng.choice((0.0, 0.0, 0.4))
    continues = rng.random() < 0.8
    return SystemShape(shards, servers, letters, plain, continues, odd=rng.random() < 0.3)
