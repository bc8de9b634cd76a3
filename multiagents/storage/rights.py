"""May a foreign key be written: a queue's list, a result?

The check needs no administrator's rights and leaves no trace.  A server that allows ACL DRYRUN
answers for the needed commands.  Otherwise the check tries a command that changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import NoPermissionError, ResponseError

from multiagents.storage.calls import Arg, Plain
from multiagents.storage.refusals import is_of_another_type
from multiagents.storage.replies import text_of

NO_INDEX = 2**31 - 1
"""No list is so long: the server refuses to set this item, after it checked type and rights.  It
cannot parse a greater number."""


async def of_list(key: str) -> str:
    """Why no message can be put into a queue's list; "" if one can, or that is unknown."""
    kind, refused = await _try("TYPE", key)
    if kind not in ("none", "list", ""):
        return f"the key is a {kind}, and has to be a list"
    told = await _dry_run(("LPUSH", key, "x"))
    if told is not None:
        return told
    return refused or (await _try("LSET", key, NO_INDEX, "x"))[1]


async def of_result(key: str) -> str:
    """Why no result can be stored under a key and published on a channel of that name; likewise."""
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
    """Why the user may not run a command, "" if it may; None: the server does not say."""
    try:
        user = await Plain(("ACL", "WHOAMI"), text_of)
        reply = await Plain(("ACL", "DRYRUN", user, *command), text_of)
    except ResponseError:  # no right to ACL, or an older server
        return None
    return "" if reply == "OK" else reply


async def _try(*command: Arg) -> tuple[str, str]:
    """A command's reply, and the reason of a refusal for its key or channel."""
    try:
        return await Plain(command, text_of), ""
    except NoPermissionError as error:
        # The engine needs another command: it does not need the right to this one.
        about_command = "permissions to run the" in str(error)
        return "", "" if about_command else str(error)
    except ResponseError as error:
        return "", str(error) if is_of_another_type(error) else ""
