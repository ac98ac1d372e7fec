"""Reads placement that is written among the environment: `constraint:`, `affinity:`, `availability:`, `reschedule:`.

The form is that of classic Swarm's filters. A name may occur several times, so entries are read from the files and not
from variables. Pure.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mesh.config.labels.values import quote_value
from mesh.model.codes import Code
from mesh.platform.stacks.model import StackAffinity, StackAffinityKind, StackZones
from mesh.platform.stacks.values import PlainValue, StackKeys, StackValueError, parse_text
from mesh.sources.compose.environment import PLACEMENT_PREFIXES

_ENTRY = re.compile(r"(constraint|affinity|availability):([^=!\s]+)\s*(==|!=)\s*(~?)(.*)", re.DOTALL)
_EXTRA_SIGN = re.compile(r"^([a-z]+:[^=!]+)=?(==|!=)=?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9:_.-]{1,200}", re.ASCII)
"""What the engine takes as a value, without what classic Swarm reads as a pattern."""
_CONSTRAINT = re.compile(
    r"(node\.(?:id|hostname|role|ip|platform\.(?:os|arch)|labels\.[A-Za-z0-9_.-]+)|engine\.labels\.[A-Za-z0-9_.-]+)"
    r"\s*(==|!=)\s*([A-Za-z0-9:_.\s*()?+\[\]\\^$|/-]+)",
    re.ASCII,
)
"""What the engine itself takes: swarmkit, manager/constraint/constraint.go."""
_SPREAD = re.compile(r"(?:node|engine)\.labels\.[A-Za-z0-9_.-]+", re.ASCII)
_MOST_ZONES = 1000
_PATTERN = "remove what is a pattern, and write one value"


@dataclass(frozen=True, slots=True)
class StackPlacement:
    """Where the instances of a service may run."""

    constraints: tuple[str, ...] = ()
    affinities: tuple[StackAffinity, ...] = ()
    zones: tuple[StackZones, ...] = ()
    may_move: bool = False
    """`reschedule:on-node-failure`: the file says that an instance may begin again elsewhere."""


def is_placement(name: str) -> bool:
    """Return whether the name of a variable is one of these entries."""
    return name.startswith(PLACEMENT_PREFIXES)


def placement_texts(value: PlainValue) -> Iterator[str]:
    """Yield the entries of `environment`, a list or a mapping, as one text each."""
    items: list[tuple[str, PlainValue]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        # A mapping that was merged into a list has one more `=`: `constraint:group` and `==1`.
        items = [(_EXTRA_SIGN.sub(r"\1\2", parse_text(item)), None) for item in value if isinstance(item, str)]
    for key, below in items:
        if is_placement(key):
            yield _joined(key, below if isinstance(below, str) else "")


def _joined(key: str, value: str) -> str:
    """Return an entry of a mapping as the text that it stands for: `constraint:group: "==1"`."""
    for separator in ("", "=", "=="):
        if not value or _ENTRY.fullmatch(f"{key}{separator}{value}"):
            return f"{key}{separator}{value}" if value else key
    return f"{key}={value}"


def read_entries(keys: StackKeys, where: str) -> StackPlacement:
    """Return the placement of a service. An entry that cannot be kept is an error, a wish that is not a warning."""
    constraints: list[str] = []
    affinities: list[StackAffinity] = []
    zones: list[StackZones] = []
    may_move = False
    for text in placement_texts(keys.get("environment")):
        path = f"environment {quote_value(text)}"
        try:
            if text.startswith("reschedule:"):
                may_move |= _reschedule(text)
                continue
            kind, name, operator, value, is_wish = _entry(text)
            if is_wish and kind != "availability":
                reason = "the engine has no wishes, so it has no effect"
                keys.warn(path, reason, "write it without ~, or remove it")
            elif kind == "constraint":
                constraints.append(_constraint(name, operator, value))
            elif kind == "affinity":
                affinities.append(_affinity(name, operator, value, where))
            else:
                zones.append(_zones(name, operator, value, where, is_hard=not is_wish))
        except StackValueError as error:
            keys.refuse(path, error.reason, error.remedy, Code.STACK_PLACEMENT)
    return StackPlacement(tuple(constraints), tuple(affinities), tuple(zones), may_move)


def _entry(text: str) -> tuple[str, str, str, str, bool]:
    match = _ENTRY.fullmatch(text)
    if match is None:
        example = "availability:az==3" if text.startswith("availability") else "constraint:NAME==VALUE"
        raise StackValueError("it is not understood", f"write it as {example}")
    return match[1], match[2], match[3], match[5].strip(), match[4] == "~"


def _value(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise StackValueError(f"{quote_value(value)} is not a value that the engine compares", _PATTERN)
    return value


def _constraint(name: str, operator: str, value: str) -> str:
    if name == "node":  # classic Swarm's own word for the worker
        return f"node.hostname{operator}{_value(value)}"
    if not _NAME.fullmatch(name):
        raise StackValueError(f"{quote_value(name)} is not a label of a worker", "write letters, digits, - _ and .")
    return f"node.labels.{name}{operator}{_value(value)}"


def _affinity(name: str, operator: str, value: str, where: str) -> StackAffinity:
    is_together = operator == "=="
    if name == "service":
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", value, re.ASCII):
            raise StackValueError(f"{quote_value(value)} is not a service", "write the name of one service")
        return StackAffinity(StackAffinityKind.SERVICE, value, "", is_together, where)
    if name in ("container", "image"):
        raise StackValueError(f"an affinity to a {name} is not kept", "write affinity:service==NAME, or a label")
    return StackAffinity(StackAffinityKind.LABEL, name, value, is_together, where)


def _zones(name: str, operator: str, value: str, where: str, *, is_hard: bool) -> StackZones:
    if operator != "==" or not re.fullmatch(r"[1-9][0-9]{0,3}", value, re.ASCII) or int(value) > _MOST_ZONES:
        raise StackValueError("it is not a number of zones", f"write availability:{name}==3")
    if not _NAME.fullmatch(name):
        raise StackValueError(f"{quote_value(name)} is not a label of a worker", "write availability:az==3")
    return StackZones(name, int(value), is_hard, where)


def _reschedule(text: str) -> bool:
    policies = re.split(r"[,=]", text.removeprefix("reschedule:"))
    wanted = {policy.strip(" []'\"") for policy in policies} - {""}
    if wanted <= {"on-node-failure"}:
        return True
    if wanted == {"off"}:
        reason = "the engine always replaces an instance whose worker is lost"
        raise StackValueError(reason, "bind the service to a worker with constraint:node==NAME")
    raise StackValueError("there is no such policy", "write reschedule:on-node-failure")


def parse_constraint(text: str) -> str:
    """Return an entry of `deploy.placement.constraints` as the engine writes it. Raises `StackValueError`."""
    match = _CONSTRAINT.fullmatch(text.strip())
    if match is None:
        reason = f"{quote_value(text)} is no constraint of the engine"
        raise StackValueError(reason, "write it as node.labels.NAME==VALUE", Code.STACK_PLACEMENT)
    return f"{match[1]}{match[2]}{match[3].strip()}"


def parse_spread(value: PlainValue) -> tuple[str, ...]:
    """Return `deploy.placement.preferences`: the labels over which instances are spread."""
    found: list[str] = []
    for item in value if isinstance(value, list) else []:
        text = parse_text(item.get("spread") or "") if isinstance(item, dict) else ""
        if not _SPREAD.fullmatch(text):
            reason = f"{quote_value(text)} is no label of workers"
            raise StackValueError(reason, "write spread: node.labels.NAME", Code.STACK_PLACEMENT)
        found.append(text)
    return tuple(found)


def constraint_matches(constraint: str, facts: Mapping[str, str]) -> bool:
    """Return whether a worker fulfils a constraint. `facts` has its values by the engine's names; case is ignored."""
    match = re.fullmatch(r"(.*?)(==|!=)(.*)", constraint, re.DOTALL)
    if match is None:
        return False
    is_equal = facts.get(match[1], "").lower() == match[3].lower()
    return is_equal == (match[2] == "==")
