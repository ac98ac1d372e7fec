"""How a virtual server's chain picks the real server of a new connection: a number from the kernel, and its slots.

nftables counts no connections, so the schedulers that want the least loaded real server share by weight instead. Up
to `MAX_SLOTS` slots are dealt out in turn and evenly mixed; beyond that at random, as a map with that many elements
would cost more than it gives. The hashing schedulers have a fixed seed: every worker sends a client to the same real
server.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mesh.model.service import Scheduler, SchedulerFlag
from mesh.model.table import RealKey, VirtualKey, VirtualServer

MAX_SLOTS = 256
"""Slots, as the weights divided by their greatest common divisor add up."""
HASH_SEED = 0x76697065
"""Any number, the same on all workers and for good."""
CONNECTION_SCHEDULERS = frozenset({Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ})
"""They look at the connections of each real server, which nftables does not know."""

_HASHING = frozenset({Scheduler.SH, Scheduler.MH, Scheduler.DH})
_EQUAL = frozenset({Scheduler.RR, Scheduler.LC})
"""They do not look at weights, but that 0 takes nothing."""


@dataclass(frozen=True, slots=True)
class BalancerChoice:
    """An nft expression without its modulus, and real servers with the number of consecutive slots of each."""

    selector: str
    runs: tuple[tuple[RealKey, int], ...]

    @property
    def slots(self) -> int:
        """The modulus."""
        return sum(count for _, count in self.runs)

    @property
    def number(self) -> str:
        """The whole nft expression: a number from 0 up to the modulus."""
        seed = f" seed {HASH_SEED:#x}" if self.selector.startswith("jhash") else ""
        return f"{self.selector} mod {self.slots}{seed}"

    def ranges(self) -> Iterator[tuple[str, RealKey]]:
        """The slots of each run as nft writes them, `4` or `4-7`."""
        start = 0
        for real, count in self.runs:
            yield (str(start) if count == 1 else f"{start}-{start + count - 1}"), real
            start += count


def choose_balancer(key: VirtualKey, server: VirtualServer) -> BalancerChoice | None:
    """What the chain has to do; None: no real server takes new connections."""
    shares = _shares(server)
    if not shares:
        return None
    if server.scheduler in _HASHING:
        return BalancerChoice(f"jhash {_hashed(key, server)}", tuple(shares.items()))
    if sum(shares.values()) > MAX_SLOTS:
        return BalancerChoice("numgen random", tuple(shares.items()))
    return BalancerChoice("numgen inc", tuple(_joined(_mixed(shares))))


def eligible_servers(server: VirtualServer) -> list[RealKey]:
    """The real servers that new connections may go to, in order."""
    return sorted(real for real, settings in server.real_servers.items() if settings.weight > 0)


def weight_unit(server: VirtualServer) -> int:
    """The weight that one slot stands for."""
    if server.scheduler in _EQUAL:
        return 1
    return math.gcd(*(settings.weight for settings in server.real_servers.values() if settings.weight > 0)) or 1


def _shares(server: VirtualServer) -> dict[RealKey, int]:
    divisor = weight_unit(server)
    equal = server.scheduler in _EQUAL
    return {real: 1 if equal else server.real_servers[real].weight // divisor for real in eligible_servers(server)}


def _hashed(key: VirtualKey, server: VirtualServer) -> str:
    ip = "ip6" if ":" in key.address else "ip"
    if server.scheduler is Scheduler.DH:
        return f"{ip} daddr"
    return f"{ip} saddr . {key.transport} sport" if SchedulerFlag.PORT in server.flags else f"{ip} saddr"


def _mixed(shares: Mapping[RealKey, int]) -> Iterator[RealKey]:
    """Each as often as its share, as evenly as can be: whoever is furthest behind is next."""
    if len(set(shares.values())) == 1:
        yield from shares  # divided by their divisor, all are 1
        return
    total = sum(shares.values())
    credit = dict.fromkeys(shares, 0)
    for _ in range(total):
        for real, share in shares.items():
            credit[real] += share
        following = max(credit, key=lambda real: credit[real])
        credit[following] -= total
        yield following


def _joined(order: Iterable[RealKey]) -> Iterator[tuple[RealKey, int]]:
    last: RealKey | None = None
    count = 0
    for real in order:
        if real != last and last is not None:
            yield last, count
            count = 0
        last, count = real, count + 1
    if last is not None:
        yield last, count
