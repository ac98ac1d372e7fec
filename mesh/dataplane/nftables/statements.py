"""What `nft -j` lists of a rule, back to the text that we write: libnftables-json(5).

A rule is ours if it prints as what we would write for the table that we read. So a change by somebody else is found
whatever it is, without a second description of every rule. Only what our rules consist of is known here; anything
else is printed as JSON, which is equal to no rule of ours.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Json = Any
"""A decoded JSON value of a shape that is only known once it has been looked at."""

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # linux/in.h


def rule_text(statements: Iterable[Json]) -> str:
    """The text of a rule, without its comment."""
    return " ".join(_one(_STATEMENTS, statement) for statement in statements)


def expression_text(value: Json) -> str:
    """The text of an expression."""
    if isinstance(value, str | int):
        return str(value)
    return _one(_EXPRESSIONS, value)


def _one(known: Mapping[str, Callable[[Json], str]], value: Json) -> str:
    """An object with one member whose name says what it is."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, content),) = value.items()
        if kind in known:
            try:
                return known[kind](content)
            except (KeyError, TypeError, ValueError):
                pass  # a shape that our rules do not have
    return json.dumps(value, sort_keys=True)


def protocol_number(value: Json) -> Json:
    """The number of a protocol, which nft lists by name where the host knows one (protocols(5))."""
    return _PROTOCOLS.get(value, value)


def _match(content: Json) -> str:
    unequal = {"==": "", "!=": "!= "}[content["op"]]
    left, right = expression_text(content["left"]), content["right"]
    return f"{left} {unequal}{expression_text(protocol_number(right) if left == 'meta l4proto' else right)}"


def _dnat(content: Json) -> str:
    if "port" in content:
        host = f"[{content['addr']}]" if ":" in content["addr"] else content["addr"]
        return f"dnat to {host}:{content['port']}"
    return f"dnat {content['family']} to {expression_text(content['addr'])}"


def _reject(content: Json) -> str:
    if content is None:
        return "reject"
    if content["type"] == "tcp reset":
        return "reject with tcp reset"
    return f"reject with {content['type']} type {content['expr']}"


def _jhash(content: Json) -> str:
    return f"jhash {expression_text(content['expr'])} mod {content['mod']} seed {content['seed']:#x}"


def _numgen(content: Json) -> str:
    offset = f" offset {content['offset']}" if content.get("offset") else ""
    return f"numgen {content['mode']} mod {content['mod']}{offset}"


def _set(content: Json) -> str:
    """Elements in an order of their own: nft lists them as it likes."""
    return "{ " + ", ".join(sorted((_element(element) for element in content), key=_by_number)) + " }"


def _element(content: Json) -> str:
    if isinstance(content, list):
        return f"{expression_text(content[0])} : {_one(_STATEMENTS | _EXPRESSIONS, content[1])}"
    return expression_text(content)


def _by_number(element: str) -> tuple[int, str]:
    number = element.partition(" ")[0].partition("-")[0]
    return (int(number) if number.isdigit() else 0), element


def _map(verb: str) -> Callable[[Json], str]:
    return lambda content: f"{expression_text(content['key'])} {verb} {expression_text(content['data'])}"


_EXPRESSIONS: dict[str, Callable[[Json], str]] = {
    "concat": lambda content: " . ".join(expression_text(part) for part in content),
    "jhash": _jhash,
    "map": _map("map"),
    "meta": lambda content: f"meta {content['key']}",
    "numgen": _numgen,
    "payload": lambda content: f"{content['protocol']} {content['field']}",
    "range": lambda content: f"{content[0]}-{content[1]}",
    "set": _set,
}

_STATEMENTS: dict[str, Callable[[Json], str]] = {
    "dnat": _dnat,
    "goto": lambda content: f"goto {content['target']}",
    "match": _match,
    "reject": _reject,
    "return": lambda _: "return",
    "set": lambda content: f"{content['op']} {content['set']} {{ {expression_text(content['elem'])} }}",
    "vmap": _map("vmap"),
}
