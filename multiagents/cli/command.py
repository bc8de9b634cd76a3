"""How are a command's options read, and how does its help show them?

An option with one value refuses a second one: click would silently drop the first, and answer
another question.  Repeatable options and flags are not affected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup


class CliCommand(TyperCommand):
    """A command of this command line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _show_no_type(self.params)

    def get_help_option(self, ctx: Any) -> Any:
        """``--help``."""
        return _show_no_type([super().get_help_option(ctx)])[0]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError for an option of one value that is given more than once."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param, times in Counter(order).items():
            if times > 1 and _takes_one(param):
                ctx.fail(
                    f"{param.opts[0]} takes one value, and is given {times} times: ask once for"
                    " each."
                )
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _show_no_type(self.params)

    def get_help_option(self, ctx: Any) -> Any:
        """``--help``."""
        return _show_no_type([super().get_help_option(ctx)])[0]


def _show_no_type(params: Iterable[Any]) -> list[Any]:
    """Remove the type from the help of flags: a flag takes no value."""
    found = list(params)
    for param in found:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return found


def _takes_one(param: Any) -> bool:
    """Whether this is an option with one value.  Typer does not export click's classes."""
    if param.param_type_name != "option":
        return False
    return not (param.multiple or param.is_flag or param.count)
