"""Parses `.env` files, `env_file` and `label_file`: lines of `NAME=VALUE`. Pure.

Grammar: compose specification, "Env_file format". python-dotenv knows neither `$VAR` nor `${VAR:+x}` nor `NAME: VALUE`,
so it would give other values than compose. A message never shows a value, since it may be a secret.
"""

import re
from collections import ChainMap
from collections.abc import Callable, Mapping

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.sources.compose.interpolate import ExpansionError, InterpolationError
from mesh.sources.compose.limits import ComposeBudget

_BLANK = re.compile(r"\s*+(?:#[^\n]*+)?")
_KEY = re.compile(r"(?:export[^\S\n]+(?=[^\s=:]))?([\w.\[\]-]+)[^\S\n]*(?:([=:])[^\S\n]*|(?=\n|#|$))")
# Possessive, so that a value of megabytes takes no memory for ways back.
_QUOTED = {
    '"': re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL),
    "'": re.compile(r"'((?:[^'\\]++|\\.)*+)'", re.DOTALL),
}
_REST_OF_LINE = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"\s#.*", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:([abcfnrtv$\"\\])|0([0-7]{1,3}))")
_ESCAPED = {"a": "\a", "b": "\b", "c": "c", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "$": "$$"}


class EnvFileError(MeshError):
    """A line that cannot be parsed. `line` counts from 1."""

    def __init__(self, line: int, reason: str, remedy: str) -> None:
        super().__init__(Code.COMPOSE_ENV_FILE, f"line {line}: {reason}; {remedy}")
        self.line = line
        self.reason = reason
        self.remedy = remedy


def parse_env_file(
    text: str, variables: Mapping[str, str], *, raw: bool = False, budget: ComposeBudget | None = None
) -> tuple[dict[str, str | None], dict[str, int]]:
    """Return the values by name, and the line of each.

    A value is None if the name has no `=` and is not in `variables`. Variables in values come from `variables`, else
    from earlier lines. With `raw` each line is `NAME=VALUE` and the value is taken as it is. The
    characters of all values are taken from `budget`. Raises `EnvFileError`.
    """
    return _EnvFileParser(text.replace("\r\n", "\n"), variables, budget or ComposeBudget()).parse(
        _raw_value if raw else None
    )


def _raw_value(rest: str) -> str:
    return rest


class _EnvFileParser:
    """Parses one text from its beginning to its end."""

    def __init__(self, text: str, variables: Mapping[str, str], budget: ComposeBudget) -> None:
        self._text = text
        self._variables = variables
        self._at = 0
        self._counted = (0, 1)
        """A position and its line."""
        self._values: dict[str, str | None] = {}
        self._lines: dict[str, int] = {}
        self._set: dict[str, str] = {}
        """The values that are not None."""
        self._budget = budget
        self._left = budget.limits.values
        """How many variables there may still be."""

    def parse(self, take: Callable[[str], str] | None) -> tuple[dict[str, str | None], dict[str, int]]:
        """Return values and lines. `take` converts the rest of a line in the place of the grammar of values."""
        while self._skip_blank() < len(self._text):
            line = self._line()
            self._left -= 1
            if self._left < 0:
                reason = f"there are more than {self._budget.limits.values} variables"
                raise EnvFileError(line, reason, "write fewer, or raise [source.compose] values")
            match = _KEY.match(self._text, self._at)
            if match is None:
                raise EnvFileError(line, "it is not NAME=VALUE", "write a name of letters, digits and _, then = VALUE")
            self._at = match.end()
            name = match[1]
            if match[2] is None:
                value = self._variables.get(name)
            elif take is not None:
                value = self._fill(take(self._take(_REST_OF_LINE)), line, name, is_plain=True)
            else:
                value = self._value(line, name)
            self._keep(name, value, line)
        return self._values, self._lines

    def _keep(self, name: str, value: str | None, line: int) -> None:
        self._values[name], self._lines[name] = value, line
        self._set.pop(name, None)
        if value is not None:
            self._set[name] = value

    def _value(self, line: int, name: str) -> str:
        quote = self._text[self._at : self._at + 1]
        if quote not in _QUOTED:
            return self._fill(_COMMENT.sub("", self._take(_REST_OF_LINE)).rstrip(), line, name)
        match = _QUOTED[quote].match(self._text, self._at)
        if match is None:
            raise EnvFileError(line, f"the quoted value of {name} has no end", f"write {quote} at its end")
        self._at = match.end()
        if quote == "'":
            return self._fill(match[1].replace("\\'", "'"), line, name, is_plain=True)
        return self._fill(_ESCAPE.sub(_unescape, match[1]), line, name)

    def _fill(self, text: str, line: int, name: str, *, is_plain: bool = False) -> str:
        """Return a value with its variables replaced, unless it is plain.

        It may double an earlier one, so forty lines would have no end.
        """
        try:
            if is_plain:
                self._budget.take(text)
                return text
            return self._budget.fill(text, ChainMap(self._variables, self._set))[0]  # type: ignore[arg-type]  # only read
        except ExpansionError as error:
            raise EnvFileError(line, error.reason, error.remedy) from None
        except InterpolationError as error:
            raise EnvFileError(line, f"the value of {name}: {error.reason}", error.remedy) from None

    def _take(self, pattern: re.Pattern[str]) -> str:
        begin = self._at
        self._skip(pattern)
        return self._text[begin : self._at]

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _skip_blank(self) -> int:
        """Skip blank lines and comments, one at a time: a match over megabytes would hold up all other threads."""
        before = -1
        while before < self._at:
            before = self._at
            self._skip(_BLANK)
        return self._at

    def _line(self) -> int:
        at, line = self._counted
        self._counted = self._at, line + self._text.count("\n", at, self._at)
        return self._counted[1]


def _unescape(match: re.Match[str]) -> str:
    if match[2]:
        return chr(int(match[2], 8) & 0xFF)
    return _ESCAPED.get(match[1], match[1])
