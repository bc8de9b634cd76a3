"""May a key be written that is not the engine's: a queue's list, a result?

Asked without rights of an administrator and without a trace.  A server that lets the user ask (ACL
DRYRUN) tells for the very commands that are needed; else a command is tried that changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import NoPermissionError, ResponseError

from multiagents.storage.calls import Arg, Plain
from multiagents.storage.refusals import is_of_another_type
from multiagents.storage.replies import text_of

NO_INDEX = 2**31 - 1
"""No list has so many items: setting one is refused, after a look at type and rights.  A greater
number would not fit into what the server reads it into."""


async def of_list(key: str) -> str:
    """Why no message can be put into a queue's list; "" if one can, or it is not told."""
    kind, refused = await _try("TYPE", key)
    if kind not in ("none", "list", ""):
        return f"the key is a {kind}, and has to be a list"
    told = await _dry_run(("LPUSH", key, "x"))
    if told is not None:
        return told
    return refused or (await _try("LSET", key, NO_INDEX, "x"))[1]


async def of_result(key: str) -> str:
    """Why no result can be stored under a key, and told by a channel of that name; likewise."""
    told = None
    for command in (("GET", key), ("SET", key, "x"), ("EXPIRE", key, 1), ("PUBLISH", key, "x")):
        told = await _dry_run(command)
        if told:
            return told
    if told is not None:
        return ""
    for trial in (("GET", key), ("SET", key, "", "XX"), ("PUBLISH", key, "")):
        refused = (await _try(*trial))[1]
        if refused:
            return refused
    return ""


async def _dry_run(command: Sequence[Arg]) -> str | None:
    """Why the user may not do this, "" if it may; None: the server does not tell us."""
    try:
        user = await Plain(("ACL", "WHOAMI"), text_of)
        reply = await Plain(("ACL", "DRYRUN", user, *command), text_of)
    except ResponseError:  # no right to ask, or a server older than that
        return None
    return "" if reply == "OK" else reply


async def _try(*command: Arg) -> tuple[str, str]:
    """A command's reply, and why it was refused, as far as that is for its key or channel."""
    try:
        return await Plain(command, text_of), ""
    except NoPermissionError as error:
        # Which command the engine needs is another: what it lacks is not the right to this one.
        about_command = "permissions to run the" in str(error)
        return "", "" if about_command else str(error)
    except ResponseError as error:
        return "", str(error) if is_of_another_type(error) else ""
