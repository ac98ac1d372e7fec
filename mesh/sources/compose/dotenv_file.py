"""Replaces `${NAME}` and `${NAME:-default}` in the values of a `.env` file, as python-dotenv does.

python-dotenv looks for the end of each `${` anew, which takes hours for some megabytes of them, and replaces variables
from this process's own environment. This does it in linear time, from a given environment, and with a bound: each value
may have earlier ones in it, so that a few lines could double a text again and again.
"""

from collections.abc import Iterable, Iterator, Mapping
from io import StringIO

from dotenv import dotenv_values

from mesh.model.codes import Code
from mesh.sources.compose.interpolate import ExpansionError
from mesh.sources.compose.model import ComposeLimits


def read_dotenv(text: str, env: Mapping[str, str], limits: ComposeLimits) -> dict[str, str]:
    """Return the variables of a `.env` file, overridden by those of `env`. Raises `ExpansionError`."""
    if text.count("\n") + text.count("\r") > limits.values:
        raise ExpansionError(
            Code.COMPOSE_VARIABLE,
            f"it has more than {limits.values} lines",
            "write fewer variables, or raise [source.compose] values",
        )
    found = dotenv_values(stream=StringIO(text), interpolate=False)
    return resolve_dotenv(found.items(), env, limits.characters)


def resolve_dotenv(values: Iterable[tuple[str, str | None]], env: Mapping[str, str], most: int) -> dict[str, str]:
    """Return the variables of a `.env` file with earlier variables replaced in them, overridden by those of `env`.

    `values`: names and values in the order of the file, None for a name without a value. `most`: the most characters
    of all values together. Raises `ExpansionError`.
    """
    known, left = dict(env), most
    for name, value in values:
        if value is None or name in env:
            continue
        parts = []
        for literal, variable, default in parse_dotenv_value(value):
            parts.append(literal if variable is None else known.get(variable, default))
            left -= len(parts[-1])
            if left < 0:
                raise ExpansionError(
                    Code.COMPOSE_VARIABLE,
                    f"its values have more than {most} characters with their variables replaced",
                    "write shorter values",
                )
        known[name] = "".join(parts)
    return known


def parse_dotenv_value(value: str) -> Iterator[tuple[str, str | None, str]]:
    """Yield the parts of a value: a text and None, or an empty text and the name and the default of a variable."""
    written = at = 0
    brace = colon = -1
    while (start := value.find("${", at)) >= 0:
        at = start + 2
        if brace < at:
            brace = value.find("}", at)
        if brace < 0:
            break
        if colon < at:
            colon = _found(value.find(":", at), len(value))
        if colon < brace and not value.startswith(":-", colon):
            continue  # no variable, but one may begin further inside
        if start > written:
            yield value[written:start], None, ""
        end = min(colon, brace)
        yield "", value[at:end], value[end + 2 : brace]
        written = at = brace + 1
    if written < len(value):
        yield value[written:], None, ""


def _found(position: int, otherwise: int) -> int:
    return position if position >= 0 else otherwise
