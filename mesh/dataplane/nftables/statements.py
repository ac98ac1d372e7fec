"""Turns a rule as listed by `nft -j` back into the text that we write (libnftables-json(5)).

A rule is ours if it prints as what we would write for the table that was read. So any change from outside is found,
without a second description of every rule. Only the parts that our rules consist of are known here; anything else is
printed as JSON, which equals no rule of ours.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Json = Any
"""A decoded JSON value whose shape is known only after looking at it."""

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # linux/in.h


def rule_text(statements: Iterable[Json]) -> str:
    """Return the text of a rule without its comment."""
    return " ".join(_one(_STATEMENTS, statement) for statement in statements)


def expression_text(value: Json) -> str:
    """Return the text of an expression."""
    if isinstance(value, str | int):
        return str(value)
    return _one(_EXPRESSIONS, value)


def _one(known: Mapping[str, Callable[[Json], str]], value: Json) -> str:
    """Print an object with one member, whose name says what it is."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, content),) = value.items()
        if kind in known:
            try:
                return known[kind](content)
            except (KeyError, TypeError, ValueError):
                pass  # our rules do not have this shape: print it as JSON
    return json.dumps(value, sort_keys=True)


def protocol_number(value: Json) -> Json:
    """Return the number of a protocol; nft lists a name if the host knows one (protocols(5))."""
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
    """Print elements sorted by number, since nft may list them in any order."""
    return "{ " + ", ".join(sorted((_element(element) for element in content), key=_by_number)) + " }"


def _element(content: Json) -> str:
    if isinstance(content, list):
        return f"{expression_text(content[0])} : {_one(_STATEMENTS | _EXPRESSIONS, content[1])}"
    return expression_text(content)


def _by_number(element: str) -> tuple[int, str]:
    number = element.partition(" ")[0].partition("-")[0]
    return (int(number) if number.isdigit() else 0), element


def _map(verb: str) -> Callable[[Json], str]:
    """Return a printer of map and vmap expressions."""
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
