"""Takes a packet through the rules of iptables, and says what may become of it. Pure.

A condition that is not understood may hold or not: whoever asks is told only of what is dropped for certain.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network

from mesh.host.firewall.facts import IptablesFilter, IptablesRule
from mesh.host.firewall.marking import DEFAULT_MARK
from mesh.model.service import Address, Transport

_DEPTH = 16
"""Jumps from chain to chain that are followed; beyond, the outcome counts as unknown."""
_PROTOCOLS = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp", "all": "", "0": ""}
_CONTINUING = frozenset(
    {"", "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "CT", "NOTRACK", "DSCP", "TOS", "AUDIT"}
)
"""Targets after which the next rule is tried."""
_DROPS = frozenset({"DROP", "REJECT"})
_ENGINE_SETS = re.compile(r"docker-ext-bridges-v[46] dst")
"""Docker's sets of the networks of its bridges that are not internal."""


class _Holds(Enum):
    """Whether a condition holds for the packet."""

    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class ForwardedPacket:
    """The first packet of a connection that arrives from another host, at one of the hooks."""

    address: Address
    port: int
    """Where it is sent to, as the rules of the hook see it."""
    transport: Transport
    bridge: str
    """The bridge that it leaves by; empty if it leaves by none."""
    others: frozenset[str]
    """Bridges of the engine, by which it does not arrive."""
    sender: Address | None = None
    """The host that it is from; None if that is not known."""
    is_translated: bool = False
    """Whether the engine has translated its destination, from a published port."""
    is_local: bool = False
    """Whether it is for an address of this host."""


@dataclass(frozen=True, slots=True)
class DroppingRule:
    """The rule, or the policy of a chain, by which a packet is dropped."""

    chain: str
    rule: IptablesRule | None
    """None for the policy."""


class RuleWalk:
    """Takes a packet through the chains of one table, and collects every verdict that it may get."""

    def __init__(self, table: IptablesFilter, packet: ForwardedPacket) -> None:
        self._table = table
        self._packet = packet
        self._known: dict[str, frozenset[str]] = {}
        self._dropping: list[DroppingRule] = []
        """The rules that drop the packet if they are reached, in the order of their chains."""

    def drops(self, chain: str) -> bool:
        """Return whether the packet is dropped for certain by a built-in chain, its policy included."""
        if chain not in self._table.chains:
            return False
        verdicts = self._verdicts(chain, 0)
        if "" in verdicts:
            verdicts = verdicts - {""} | {self._table.policies.get(chain, "ACCEPT")}
        return verdicts == {"DROP"}

    def dropped_by(self, chain: str) -> DroppingRule | None:
        """Return what drops the packet in a built-in chain; None if it is not dropped for certain."""
        if not self.drops(chain):
            return None
        return next(iter(self._dropping), DroppingRule(chain, None))

    def _verdicts(self, chain: str, depth: int) -> frozenset[str]:
        """Return what may become of the packet in a chain: `ACCEPT`, `DROP`, or empty for the return to the caller."""
        if chain not in self._known:
            if depth > _DEPTH:
                return frozenset({"ACCEPT", "DROP", ""})
            self._known[chain] = frozenset(self._walk(chain, depth))
        return self._known[chain]

    def _walk(self, chain: str, depth: int) -> Iterator[str]:
        for rule in self._table.chains[chain]:
            if rule.target in _CONTINUING:
                continue
            holds = _holds(rule, self._packet)
            if holds is _Holds.NO:
                continue
            verdicts = self._target(rule, depth)
            if holds is _Holds.YES and rule.target in _DROPS:
                self._dropping.append(DroppingRule(chain, rule))
            yield from verdicts - {""}
            if "" in verdicts and (rule.target == "RETURN" or "-g" in rule.words):
                yield ""
                if holds is _Holds.YES:
                    return
            if holds is _Holds.YES and "" not in verdicts:
                return
        yield ""

    def _target(self, rule: IptablesRule, depth: int) -> frozenset[str]:
        if rule.target in self._table.chains:
            return self._verdicts(rule.target, depth + 1)
        if rule.target == "RETURN":
            return frozenset({""})
        if rule.target in _DROPS:
            return frozenset({"DROP"})
        # What is not known, such as NFQUEUE, may accept.
        return frozenset({"ACCEPT"} if rule.target == "ACCEPT" else {"ACCEPT", "DROP", ""})


def translated(table: IptablesFilter, packet: ForwardedPacket) -> tuple[Address, int] | None:
    """Return where the engine sends a packet for a published port, by its table `nat`: the address and port of a
    container; None if it translates none, or if it is not certain where to.
    """
    found = set()
    for chain, rule in table.every_rule():
        to = rule.option("--to-destination")
        if rule.target == "DNAT" and chain != "OUTPUT" and to is not None and _holds(rule, packet) is not _Holds.NO:
            address, _, port = to[0].rpartition(":")
            if not port.isdecimal():
                return None
            found.add((address.strip("[]"), int(port)))
    return found.pop() if len(found) == 1 else None


def _holds(rule: IptablesRule, packet: ForwardedPacket) -> _Holds:
    """Return whether a rule's conditions hold for the packet."""
    found = [_condition(name, values, packet, negated=negated) for name, values, negated in _conditions(rule.words)]
    return min(found, key=lambda holds: holds.value, default=_Holds.YES)


def _conditions(words: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield the name, the values and the negation of each option before the target."""
    name, negated, pending = "", False, False
    values: list[str] = []
    for word in words:
        if word == "!":
            pending = True
        elif word.startswith("-"):
            if name:
                yield name, tuple(values), negated
            if word in ("-j", "-g"):
                return
            name, values, negated, pending = word, [], pending, False
        else:
            values.append(word)
    if name:
        yield name, tuple(values), negated


def _condition(name: str, values: tuple[str, ...], packet: ForwardedPacket, *, negated: bool) -> _Holds:
    if name in ("-m", "--comment"):
        return _Holds.YES
    test = _TESTS.get(name)
    holds = test(" ".join(values), packet) if test is not None and values else None
    if holds is None:
        return _Holds.MAYBE
    return _Holds.YES if holds is not negated else _Holds.NO


def _leaves_by(value: str, packet: ForwardedPacket) -> bool:
    return packet.bridge.startswith(value[:-1]) if value.endswith("+") else packet.bridge == value


def _arrives_by(value: str, packet: ForwardedPacket) -> bool | None:
    """None: it may be the interface that leads to the other workers."""
    return False if value == "lo" or value in packet.others else None


def _is_for(value: str, packet: ForwardedPacket) -> bool | None:
    try:
        return ip_address(packet.address) in ip_network(value, strict=False)
    except ValueError:
        return None


def _has_protocol(value: str, packet: ForwardedPacket) -> bool:
    return _PROTOCOLS.get(value, value) in ("", packet.transport.value)


def _has_port(value: str, packet: ForwardedPacket) -> bool | None:
    """`80`, `80:90` or `80,90:95`."""
    spans = [part.partition(":") for part in value.split(",")]
    if not all(low.isdecimal() and (high.isdecimal() or not colon) for low, colon, high in spans):
        return None
    return any(int(low) <= packet.port <= int(high or low) for low, _, high in spans)


def _is_from(value: str, packet: ForwardedPacket) -> bool | None:
    """None: nothing is known of the sender."""
    try:
        return None if packet.sender is None else ip_address(packet.sender) in ip_network(value, strict=False)
    except ValueError:
        return None


def _has_state(value: str, packet: ForwardedPacket) -> bool:
    """It begins a connection. Whether anything on this host has translated it is known."""
    states = value.split(",")
    return "NEW" in states or (packet.is_translated and "DNAT" in states)


def _has_mark(value: str, _: ForwardedPacket) -> bool | None:
    """Our mark is for what this host has translated."""
    return False if value == str(DEFAULT_MARK) else None


def _is_to_kind(value: str, packet: ForwardedPacket) -> bool | None:
    return {"LOCAL": packet.is_local, "UNICAST": not packet.is_local}.get(value)


def _is_in_set(value: str, _: ForwardedPacket) -> bool | None:
    return True if _ENGINE_SETS.fullmatch(value) else None


_TESTS = {
    "-i": _arrives_by,
    "-o": _leaves_by,
    "-s": _is_from,
    "-d": _is_for,
    "-p": _has_protocol,
    "--dport": _has_port,
    "--dports": _has_port,
    "--ctstate": _has_state,
    "--state": _has_state,
    "--mark": _has_mark,
    "--dst-type": _is_to_kind,
    "--match-set": _is_in_set,
}
