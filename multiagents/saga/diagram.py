"""How do the states of a saga look as a diagram?

Drawn from the table that `decide` obeys, so that documentation cannot say anything else.  Pure.
"""

from __future__ import annotations

from multiagents.core.states import BY_OPERATOR, ENDED, SAGA_MOVES, SagaState


def saga_diagram() -> str:
    """The legal moves of a saga as mermaid text; a person's are marked ``by command``."""
    lines = ["stateDiagram-v2", f"    [*] --> {SagaState.PENDING}"]
    for (before, after), cause in SAGA_MOVES.items():
        label = ": by command" if cause == BY_OPERATOR else ""
        lines.append(f"    {before} --> {after}{label}")
    lines += [f"    {state} --> [*]" for state in SagaState if state in ENDED]
    return "\n".join(lines) + "\n"
