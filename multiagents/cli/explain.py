"""How does a person learn why a saga is where it is?"""

from __future__ import annotations

from multiagents.cli.output import Json, emit, say
from multiagents.cli.session import connect
from multiagents.cli.watch import SagaId


def explain(saga_id: SagaId, json_output: Json = False) -> None:
    """Say why a saga is where it is, and what would move it; changes nothing.

    With --json the reasons one by one, with codes, times and commands.
    """
    told = connect().call("explain", saga_id)
    if json_output:
        emit(told)
    else:
        say(told["text"])
