"""Which names does a CEL expression read?

The CEL library lists the variables of an expression, but neither what is selected from them nor
which of them its macros bind.  So the text is cut into tokens here (string literals and comments
never count as names) and each free name is followed as far as its selectors are constant:
``steps.a.result.x`` and ``steps["a"].result`` are paths, ``steps[input.which]`` ends at
``steps``.

Only for expressions that have compiled: nothing here reports bad syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

Path = tuple[str, ...]

_TOKEN = re.compile(
    r'''
      (?P<space> \s+ | //[^\n]* )
    | (?P<string>
          (?: [rR][bB]? | [bB][rR] )
          (?: """ [\s\S]*? """ | \'\'\' [\s\S]*? \'\'\' | "[^"\n]*" | '[^'\n]*' )
        | [bB]?
          (?: """ (?: [^\\] | \\[\s\S] )*? """ | \'\'\' (?: [^\\] | \\[\s\S] )*? \'\'\'
            | " (?: [^"\\\n] | \\. )* " | ' (?: [^'\\\n] | \\. )* ' )
      )
    | (?P<number>
          0[xX][0-9a-fA-F]+ [uU]?
        | (?: [0-9]+\.[0-9]+ | \.[0-9]+ | [0-9]+ ) (?: [eE][+-]?[0-9]+ )? [uU]?
      )
    | (?P<name> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<sign> [\s\S] )
    ''',
    re.VERBOSE,
)
_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
_KEYWORDS = frozenset({"true", "false", "null", "in"})
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


_END = _Token("end", "")


@lru_cache(maxsize=4096)
def paths(expression: str) -> tuple[Path, ...]:
    """The free names of an expression with their constant selectors, in order of appearance."""
    return tuple(dict.fromkeys(_Walk(_tokens(expression)).paths()))


def _tokens(expression: str) -> list[_Token]:
    found = (_Token(match.lastgroup or "", match.group()) for match in _TOKEN.finditer(expression))
    return [token for token in found if token.kind != "space"]


class _Walk:
    """One pass over the tokens; ``bound`` holds, per open bracket, the variable of its macro."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.bound: list[str | None] = []

    def at(self, index: int) -> _Token:
        return self.tokens[index] if 0 <= index < len(self.tokens) else _END

    def paths(self) -> list[Path]:
        found: list[Path] = []
        for index, token in enumerate(self.tokens):
            if token.kind == "sign":
                self._bracket(index)
            elif self._is_free(index):
                found.append(self._path(index))
        return found

    def _bracket(self, index: int) -> None:
        if self.at(index).text in _CLOSERS:
            self.bound.append(self._variable(index))
        elif self.at(index).text in _CLOSERS.values():
            self.bound.pop()

    def _variable(self, index: int) -> str | None:
        """What ``.all(x, `` and its like bind until their bracket closes."""
        before, after = self.at(index - 1), self.at(index + 1)
        is_macro = before.text in _MACROS and self.at(index - 2).text == "."
        if is_macro and after.kind == "name" and self.at(index + 2).text == ",":
            return after.text
        return None

    def _is_free(self, index: int) -> bool:
        token = self.at(index)
        if token.kind != "name" or token.text in _KEYWORDS or token.text in self.bound:
            return False
        return not self._is_selector(index) and self.at(index + 1).text != "("

    def _is_selector(self, index: int) -> bool:
        """Whether the name follows an operand and a dot; ``.x`` alone is an absolute name."""
        before = self.at(index - 2)
        is_operand = before.kind in {"name", "string"} and before.text not in _KEYWORDS
        return self.at(index - 1).text == "." and (is_operand or before.text in {")", "]", "}"})

    def _path(self, index: int) -> Path:
        absolute = "." if self.at(index - 1).text == "." else ""
        path = [absolute + self.at(index).text]
        index += 1
        while True:
            first, second, third = (self.at(index + offset) for offset in range(3))
            if first.text == "." and third.text != "(":
                path.append(second.text)
                index += 2
            elif first.text == "[" and second.kind == "string" and third.text == "]":
                path.append(_literal(second.text))
                index += 3
            else:
                return tuple(path)


def _literal(text: str) -> str:
    """The value of a string literal, by CEL's own rules."""
    import cel

    return str(cel.compile(text).execute({}))
