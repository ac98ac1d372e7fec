"""Replaces variables in the values of a compose file: `$VAR`, `${VAR}` and the forms with an operator.

Grammar (compose specification, "Interpolation"): `${VAR-x}` is x if VAR is unset, `${VAR:-x}` is x if VAR is unset or
empty, `${VAR?m}` and `${VAR:?m}` are an error with the message m, `${VAR+x}` and `${VAR:+x}` are x if VAR is set; `$$`
is a dollar sign, and so is a `$` before anything else than a name or a brace. x may contain variables. Values of
variables are not interpolated again. The length of the result is bounded all the same: a text of `${A}${A}...` is as
long as the product of two files that somebody wrote.
"""

import re
from collections.abc import Mapping

from mesh.config.labels.values import escape_unprintable
from mesh.model.codes import Code
from mesh.model.errors import MeshError

MAX_CHARACTERS = 8 << 20
"""The most characters of a text with its variables replaced, where nothing else is said."""
_NEST_MAX = 16
_SHOWN_MESSAGE = 300
"""Characters of what somebody wrote for a missing variable."""
_DOLLAR = re.compile(r"\$(?:(?P<escaped>\$)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<brace>\{))", re.ASCII)
_BRACES = re.compile(r"\$\$|\$\{|\}")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:?[-?+])(?P<operand>.*))?", re.ASCII | re.DOTALL)


class InterpolationError(MeshError):
    """A text whose variables cannot be replaced. `reason` says why, `remedy` what to write instead."""

    def __init__(self, code: Code, reason: str, remedy: str) -> None:
        super().__init__(code, f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class ExpansionError(InterpolationError):
    """A text that would be too long with its variables replaced."""


def interpolate(text: str, env: Mapping[str, str], most: int = MAX_CHARACTERS) -> tuple[str, tuple[str, ...]]:
    """Return the text with its variables replaced, and the names of unset variables without a default.

    An unset variable counts as empty. `most`: the most characters of the result. Raises `InterpolationError`.
    """
    if "$" not in text and len(text) <= most:
        return text, ()
    expansion = _Expansion(env, most)
    return expansion.expand(text, 0), tuple(expansion.unset)


class _Expansion:
    """Replaces the variables of one text, within a number of characters."""

    def __init__(self, env: Mapping[str, str], most: int) -> None:
        self.unset: dict[str, None] = {}
        """Unset variables without a default, in order."""
        self._env = env
        self._most = self._left = most

    def expand(self, text: str, depth: int) -> str:
        if depth > _NEST_MAX:
            raise InterpolationError(
                Code.COMPOSE_VARIABLE,
                f"variables are nested more than {_NEST_MAX} deep",
                "write fewer ${ inside one another",
            )
        parts, at = [], 0
        while (dollar := text.find("$", at)) >= 0:
            parts.append(self._taken(text[at:dollar]))
            match = _DOLLAR.match(text, dollar)
            at = dollar + 1 if match is None else match.end()
            if match is None or match["escaped"]:
                parts.append(self._taken("$"))
            elif match["name"]:
                parts.append(self._value(match["name"]))
            else:
                end = _closing(text, at)
                parts.append(self._braced(text[at:end], depth))
                at = end + 1
        parts.append(self._taken(text[at:]))
        return "".join(parts)

    def _braced(self, inside: str, depth: int) -> str:
        match = _INSIDE.fullmatch(inside)
        if match is None:
            raise InterpolationError(
                Code.COMPOSE_VARIABLE, "the text inside ${ } is not a variable", "write ${VAR}, ${VAR:-default} or $$"
            )
        name, operator, operand = match["name"], match["operator"], match["operand"]
        if operator is None:
            return self._value(name)
        present = bool(self._env.get(name)) if operator.startswith(":") else name in self._env
        match operator[-1]:
            case "+":
                return self.expand(operand, depth + 1) if present else ""
            case "-" if not present:
                return self.expand(operand, depth + 1)
            case "?" if not present:
                message = escape_unprintable(self.expand(operand, depth + 1), _SHOWN_MESSAGE)
                shown = escape_unprintable(name)
                raise InterpolationError(
                    Code.COMPOSE_VARIABLE,
                    f"variable {shown} is required{f' ({message})' if message else ''}",
                    f"set {shown} or write a default",
                )
        return self._taken(self._env[name])

    def _value(self, name: str) -> str:
        if name not in self._env:
            self.unset[name] = None
        return self._taken(self._env.get(name, ""))

    def _taken(self, text: str) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise ExpansionError(
                Code.COMPOSE_VARIABLE,
                f"it has more than {self._most} characters with its variables replaced",
                "write shorter values",
            )
        return text


def _closing(text: str, start: int) -> int:
    """Return the position of the brace that closes the one before `start`."""
    open_braces = 1
    for match in _BRACES.finditer(text, start):
        if match[0] == "${":
            open_braces += 1
        elif match[0] == "}":
            open_braces -= 1
            if not open_braces:
                return match.start()
    raise InterpolationError(Code.COMPOSE_VARIABLE, "a ${ is not closed", "write } at its end, or $$ for a dollar sign")
