"""One virtual server as a chain of nftables: what is in it, as text for nft(8) and as read from its JSON.

The first rule balances new connections: a number (in turn, or a hash of the client) picks from a map of real servers.
The rules behind it are never reached; they note what such a map cannot hold, a real server of weight 0 or with
thresholds, so that all of a virtual server is read back from where the traffic flows. Comments hold names of settings.

No I/O: `libnftables-json(5)` has the shapes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.model import RealKey, RealServer, Scheduler, SchedulerFlag, VirtualKey, VirtualServer

ALIEN = -1
"""A persistence that no plan asks for: the next diff finds it different and sets it right."""

_BY_CLIENT = frozenset({Scheduler.SH, Scheduler.MH})
_UNWEIGHTED = frozenset({Scheduler.RR, Scheduler.LC})
_LISTED_PORT = {"tcp": "th", "udp": "th", "sctp": "th"}  # nft lists the protocol that it knows from the rule before


@dataclass(frozen=True, slots=True)
class Chain:
    """What is in the chain of one virtual server."""

    settings: str
    """Scheduler, persistence and flags, as the comment of the first rule has them."""
    chooser: str
    """What picks a number: `numgen inc`, `jhash ip saddr`, ...; empty: nothing is picked, and nothing answers."""
    shares: tuple[tuple[RealKey, int], ...]
    """Real server -> how many of the numbers are its own."""
    notes: tuple[tuple[RealKey, str], ...]
    """Real server -> weight and thresholds, where the share does not say it all."""


def name_of(key: VirtualKey) -> str:
    """The chain's name: `tcp_10.112.0.7_80`."""
    return f"{key.transport}_{key.address.replace(':', '_')}_{key.port}"


def chain_of(key: VirtualKey, server: VirtualServer) -> Chain:
    """The chain that does what the virtual server asks for, as far as nftables can."""
    usable = [(real, settings) for real, settings in sorted(server.real_servers.items(), key=_first) if settings.weight]
    unweighted = server.scheduler in _UNWEIGHTED
    shares = tuple((real, 1 if unweighted else settings.weight) for real, settings in usable)
    held = dict(shares)
    flags = ",".join(sorted(server.flags)) or "-"
    return Chain(
        f"{server.scheduler} {server.persistence} {flags}",
        _chooser(key, server) if shares else "",
        shares,
        tuple(
            (real, f"{settings.weight} {settings.upper_threshold} {settings.lower_threshold}")
            for real, settings in sorted(server.real_servers.items(), key=_first)
            if settings != RealServer(held.get(real, 0)) or not settings.weight
        ),
    )


def server_of(chain: Chain, key: VirtualKey) -> VirtualServer:
    """The virtual server that a chain was made for; one that says it is `ALIEN` if the chain does otherwise."""
    match = re.fullmatch(r"(\w+) (\d+) (\S+)", chain.settings)
    real_servers = {real: RealServer(share) for real, share in chain.shares}
    for real, note in chain.notes:
        weight, upper, lower = (int(number) for number in note.split())
        real_servers[real] = RealServer(weight, upper_threshold=upper, lower_threshold=lower)
    if match is None or match[1] not in list(Scheduler):
        return VirtualServer(persistence=ALIEN, real_servers=real_servers)
    flags = frozenset(SchedulerFlag(flag) for flag in match[3].split(",") if flag in list(SchedulerFlag))
    server = VirtualServer(Scheduler(match[1]), int(match[2]), real_servers, flags)
    if chain_of(key, server) != chain:
        return VirtualServer(server.scheduler, ALIEN, real_servers, flags)
    return server


def rules(key: VirtualKey, chain: Chain) -> Iterator[str]:
    """The rules of the chain for nft(8), in order."""
    if chain.shares:
        ranges, start = [], 0
        for real, share in chain.shares:
            numbers = f"{start}-{start + share - 1}" if share > 1 else f"{start}"
            ranges.append(f"{numbers} : {real.address} . {real.port}")
            start += share
        picked = f"{chain.chooser} mod {start} map {{ {', '.join(ranges)} }}"
        yield f'meta l4proto {key.transport} dnat to {picked} comment "{chain.settings}"'
    else:
        yield f'return comment "{chain.settings}"'
    for real, note in chain.notes:
        yield f'meta l4proto {key.transport} dnat to {real} comment "{note}"'


def parse(listed: Sequence[Mapping[str, Any]]) -> Chain | None:
    """The chain from its rules as nft lists them in JSON; None if they are none of ours."""
    try:
        first, *others = listed
        chooser, shares = _balancing(first["expr"])
        notes = tuple((_target(rule["expr"]), _numbers(rule["comment"])) for rule in others)
        return Chain(str(first["comment"]), chooser, shares, notes)
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _first(item: tuple[RealKey, RealServer]) -> RealKey:
    return item[0]


def _chooser(key: VirtualKey, server: VirtualServer) -> str:
    family = "ip6" if ":" in key.address else "ip"
    if server.scheduler is Scheduler.DH:
        return f"jhash {family} daddr"
    if server.scheduler in _BY_CLIENT and SchedulerFlag.PORT in server.flags and not server.persistence:
        return f"jhash {family} saddr . th sport"
    if server.scheduler in _BY_CLIENT or server.persistence:
        return f"jhash {family} saddr"
    return "numgen inc"


def _balancing(expressions: Sequence[Any]) -> tuple[str, tuple[tuple[RealKey, int], ...]]:
    if "return" in expressions[0]:
        return "", ()
    chosen = _dnat(expressions)["addr"]["map"]
    shares = []
    for numbers, to in chosen["data"]["set"]:
        low, high = numbers["range"] if isinstance(numbers, dict) else (numbers, numbers)
        address, port = to["concat"]
        shares.append((low, RealKey(address, port), high - low + 1))
    return _chooser_of(chosen["key"]), tuple((real, share) for _, real, share in sorted(shares))


def _chooser_of(key: Mapping[str, Any]) -> str:
    if "numgen" in key:
        return f"numgen {key['numgen']['mode']}"
    hashed = key["jhash"]["expr"]
    parts = [part["payload"] for part in hashed.get("concat", [hashed])]
    fields = [(_LISTED_PORT.get(part["protocol"], part["protocol"]), part["field"]) for part in parts]
    return "jhash " + " . ".join(f"{protocol} {field}" for protocol, field in fields)


def _target(expressions: Sequence[Any]) -> RealKey:
    dnat = _dnat(expressions)
    return RealKey(str(dnat["addr"]), int(dnat["port"]))


def _dnat(expressions: Sequence[Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(expression["dnat"] for expression in expressions if "dnat" in expression)
    return found


def _numbers(note: str) -> str:
    if not re.fullmatch(r"\d+ \d+ \d+", note):
        raise ValueError(note)
    return note
