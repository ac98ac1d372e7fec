"""Replaces variables in the values of a compose file: `$VAR`, `${VAR}` and the forms with an operator.

Grammar (compose specification, "Interpolation"): `${VAR-x}` is x if VAR is unset, `${VAR:-x}` is x if VAR is unset or
empty, `${VAR?m}` and `${VAR:?m}` are an error with the message m, `${VAR+x}` and `${VAR:+x}` are x if VAR is set; `$$`
is a dollar sign, and so is a `$` before anything else than a name or a brace. x may contain variables. Values of
variables are not interpolated again.
"""

import re
from collections.abc import Mapping

from mesh.model.codes import Code
from mesh.model.errors import MeshError

_NEST_MAX = 16
MAX_CHARACTERS = 1 << 20
"""The length of a text after its variables are replaced."""
_DOLLAR = re.compile(r"\$(?:(?P<escaped>\$)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<brace>\{))", re.ASCII)
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:?[-?+])(?P<operand>.*))?", re.ASCII | re.DOTALL)


class InterpolationError(MeshError):
    """A text whose variables cannot be replaced. `reason` says why, `remedy` what to write instead."""

    def __init__(self, code: Code, reason: str, remedy: str) -> None:
        super().__init__(code, f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


def interpolate(text: str, env: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the text with its variables replaced, and the names of unset variables without a default.

    An unset variable counts as empty. Raises `InterpolationError`.
    """
    unset: dict[str, None] = {}
    return _expand(text, env, unset, 0), tuple(unset)


def _expand(text: str, env: Mapping[str, str], unset: dict[str, None], depth: int) -> str:
    if depth > _NEST_MAX:
        raise InterpolationError(
            Code.COMPOSE_VARIABLE,
            f"variables are nested more than {_NEST_MAX} deep",
            "write fewer ${ inside one another",
        )
    parts: list[str] = []
    at = length = 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        match = _DOLLAR.match(text, dollar)
        at = dollar + 1 if match is None else match.end()
        if match is None or match["escaped"]:
            parts.append("$")
        elif match["name"]:
            parts.append(_value(match["name"], env, unset))
        else:
            end = _closing(text, at)
            parts.append(_braced(text[at:end], env, unset, depth))
            at = end + 1
        length += len(parts[-1])
        if length > MAX_CHARACTERS:
            raise InterpolationError(
                Code.COMPOSE_VARIABLE,
                f"with its variables replaced the text has more than {MAX_CHARACTERS} characters",
                "write fewer or shorter variables",
            )
    parts.append(text[at:])
    return "".join(parts)


def _closing(text: str, start: int) -> int:
    """Return the position of the brace that closes the one before `start`."""
    open_braces, at = 1, start
    while at < len(text):
        if text.startswith(("$$", "${"), at):
            open_braces += text[at + 1] == "{"
            at += 2
            continue
        if text[at] == "}":
            open_braces -= 1
            if not open_braces:
                return at
        at += 1
    raise InterpolationError(Code.COMPOSE_VARIABLE, "a ${ is not closed", "write } at its end, or $$ for a dollar sign")


def _braced(inside: str, env: Mapping[str, str], unset: dict[str, None], depth: int) -> str:
    match = _INSIDE.fullmatch(inside)
    if match is None:
        raise InterpolationError(
            Code.COMPOSE_VARIABLE, "the text inside ${ } is not a variable", "write ${VAR}, ${VAR:-default} or $$"
        )
    name, operator, operand = match["name"], match["operator"], match["operand"]
    if operator is None:
        return _value(name, env, unset)
    present = bool(env.get(name)) if operator.startswith(":") else name in env
    match operator[-1]:
        case "+":
            return _expand(operand, env, unset, depth + 1) if present else ""
        case "-" if not present:
            return _expand(operand, env, unset, depth + 1)
        case "?" if not present:
            message = _expand(operand, env, unset, depth + 1)
            raise InterpolationError(
                Code.COMPOSE_VARIABLE,
                f"variable {name} is required{f' ({message})' if message else ''}",
                f"set {name} or write a default",
            )
    return env[name]


def _value(name: str, env: Mapping[str, str], unset: dict[str, None]) -> str:
    if name not in env:
        unset[name] = None
    return env.get(name, "")
