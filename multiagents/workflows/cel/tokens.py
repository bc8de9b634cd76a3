"""Which tokens does an expression's text have, and which value does a literal have?

Length and bracket depth are limited here, before the parser reads the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multiagents.workflows.cel.values import INT_MAX, UINT_MAX, Uint

MOST_CHARACTERS = 10_000
"""Characters of one expression; a longer list belongs in the input."""
MOST_LEVELS = 50
"""Levels of nested brackets, signs and choices."""

_TOKEN = re.compile(
    r'''
      (?P<space> [ \t\r\n\f]+ | //[^\n]* )
    | (?P<string>
          (?: [rR] | [bB][rR]? )?
          (?: """ (?: [^\\] | \\[\s\S] )*? """ | \'\'\' (?: [^\\] | \\[\s\S] )*? \'\'\'
            | " (?: [^"\\\r\n] | \\. )* " | ' (?: [^'\\\r\n] | \\. )* ' )
      )
    | (?P<number>
          0x[0-9a-fA-F]+ [uU]?
        | [0-9]* \. [0-9]+ (?: [eE][+-]?[0-9]+ )?
        | [0-9]+ [eE][+-]?[0-9]+
        | [0-9]+ [uU]?
      )
    | (?P<name> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<sign> \|\| | && | [<>=!]= | [-+*/%<>!?:.,()\[\]{}] )
    ''',
    re.VERBOSE,
)
_RAW = re.compile(
    r"""[bB]?[rR](?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"[^"\r\n]*"|'[^'\r\n]*')""",
)
_ESCAPE = re.compile(
    r"""\\(?:(?P<plain>[abfnrtv\\?"'`])|[xX](?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})"""
    r"""|U(?P<U>[0-9a-fA-F]{8})|(?P<octal>[0-3][0-7]{2})|(?P<bad>[\s\S]?))"""
)
_PLAIN = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))
_LONG = 1000
"""A number with more digits than this is out of range, so Python need not convert it."""
_OPENERS = frozenset("([{")


class CelSyntaxError(ValueError):
    """The text is not an expression, or exceeds a limit; ``place`` is an offset, or None."""

    def __init__(self, reason: str, place: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the text."""

    kind: str
    text: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """The tokens of a text, without space and comments.  Raises CelSyntaxError."""
    if len(text) > MOST_CHARACTERS:
        raise CelSyntaxError(
            f"is {len(text):,} characters long; at most {MOST_CHARACTERS:,}: keep long lists in"
            " the input, or decide in a step"
        )
    found = []
    place = level = 0
    while place < len(text):
        match = _RAW.match(text, place)
        kind = "string"
        if match is None:
            match = _TOKEN.match(text, place)
            kind = (match and match.lastgroup) or ""
        if match is None:
            what = "begins a text that does not end" if text[place] in "\"'" else "is not valid CEL"
            raise CelSyntaxError(f"{text[place]!r} {what}", place)
        if kind != "space":
            found.append(Token(kind, match.group(), place, match.end()))
        level += (match.group() in _OPENERS) - (match.group() in ")]}")
        if level > MOST_LEVELS:
            raise too_deep(place)
        place = match.end()
    return found


def too_deep(place: int) -> CelSyntaxError:
    """The error of an expression that is nested too deep."""
    return CelSyntaxError(
        f"is nested deeper than {MOST_LEVELS} levels; split it, or decide in a step", place
    )


def number(token: Token, *, negative: bool) -> int | float:
    """The value of a literal number; its sign is a separate token."""
    text = ("-" if negative else "") + token.text
    unsigned = text[-1] in "uU" and not re.fullmatch(r"-?0x[0-9a-fA-F]+", text)
    digits = text[:-1] if unsigned else text
    if re.fullmatch(r"-?(?:0x[0-9a-fA-F]+|[0-9]+)", digits):
        whole = int(digits, 16 if "x" in digits else 10) if len(digits) < _LONG else UINT_MAX + 1
        if unsigned and 0 <= whole <= UINT_MAX:
            return Uint(whole)
        if not unsigned and -INT_MAX - 1 <= whole <= INT_MAX:
            return whole
        raise CelSyntaxError(
            f"{text[:40]} does not fit in 64 bits; pass it in the input and compare with that",
            token.start,
        )
    value = float(digits)
    if value in (float("inf"), -float("inf")):
        raise CelSyntaxError(f"{text[:40]} is not a finite number", token.start)
    return value


def string(token: Token) -> str | bytes:
    """The value of a literal text."""
    quote = re.search("[\"']", token.text)
    start = quote.start() if quote else 0
    prefix, body = token.text[:start].lower(), token.text[start:]
    width = 3 if body[:3] in {'"""', "'''"} else 1
    body = body[width:-width]
    if "b" in prefix:
        return body.encode() if "r" in prefix else _bytes(body, token.start)
    return body if "r" in prefix else _ESCAPE.sub(lambda found: _character(found, token), body)


def _character(found: re.Match[str], token: Token) -> str:
    if (plain := found["plain"]) is not None:
        return _PLAIN.get(plain, plain)
    code = found["x"] or found["u"] or found["U"]
    number = int(code, 16) if code else int(found["octal"] or "-1", 8)
    if number < 0 or number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise CelSyntaxError(f"{found.group()!r} is not an escape of CEL", token.start)
    return chr(number)


def _bytes(body: str, place: int) -> bytes:
    parts: list[bytes] = []
    end = 0
    for found in _ESCAPE.finditer(body):
        parts.append(body[end : found.start()].encode())
        end = found.end()
        code = found["x"] or found["octal"]
        if code:
            parts.append(bytes([int(code, 16 if found["x"] else 8)]))
        elif found["plain"]:
            parts.append(_PLAIN.get(found["plain"], found["plain"]).encode())
        else:
            raise CelSyntaxError(f"{found.group()!r} is not an escape of CEL's bytes", place)
    return b"".join([*parts, body[end:].encode()])
