"""Chooses how a virtual server's chain selects the real server of a new connection: by a number from the kernel.

nftables does not count connections, so schedulers that prefer the least loaded real server share by weight instead. Up
to `MAX_SLOTS` slots are used in turn and evenly mixed; with more slots the choice is random, since a map with that many
elements would cost more than it gains. Hashing schedulers use a fixed seed, so that every worker sends a client to the
same real server.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mesh.model.service import Scheduler, SchedulerFlag
from mesh.model.table import RealKey, VirtualKey, VirtualServer

MAX_SLOTS = 256
"""Maximum slots that are used in turn; slots are the weights divided by their greatest common divisor."""
HASH_SEED = 0x76697065
"""An arbitrary number that must be the same on all workers and must never change."""
CONNECTION_SCHEDULERS = frozenset({Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ})
"""Schedulers that look at the connections of each real server, which nftables does not know."""

_HASHING = frozenset({Scheduler.SH, Scheduler.MH, Scheduler.DH})
_EQUAL = frozenset({Scheduler.RR, Scheduler.LC})
"""Schedulers that ignore weights, except that weight 0 gets no new connections."""


@dataclass(frozen=True, slots=True)
class BalancerChoice:
    """An nft expression without its modulus, and each real server with its number of consecutive slots."""

    selector: str
    """The expression that yields a number, without its modulus."""
    runs: tuple[tuple[RealKey, int], ...]
    """Real servers with their slots, in the order of the slots; a real server may have several runs."""

    @property
    def slots(self) -> int:
        """The modulus of the expression: the number of slots."""
        return sum(count for _, count in self.runs)

    @property
    def number(self) -> str:
        """The complete nft expression, which yields a number from 0 up to the modulus, exclusive."""
        seed = f" seed {HASH_SEED:#x}" if self.selector.startswith("jhash") else ""
        return f"{self.selector} mod {self.slots}{seed}"

    def ranges(self) -> Iterator[tuple[str, RealKey]]:
        """Yield the slots of each run as nft writes them: `4` or `4-7`."""
        start = 0
        for real, count in self.runs:
            yield (str(start) if count == 1 else f"{start}-{start + count - 1}"), real
            start += count


def choose_balancer(key: VirtualKey, server: VirtualServer) -> BalancerChoice | None:
    """Return how the chain selects a real server; None if no real server takes new connections."""
    shares = _shares(server)
    if not shares:
        return None
    if server.scheduler in _HASHING:
        return BalancerChoice(f"jhash {_hashed(key, server)}", tuple(shares.items()))
    if sum(shares.values()) > MAX_SLOTS:
        return BalancerChoice("numgen random", tuple(shares.items()))
    return BalancerChoice("numgen inc", tuple(_joined(_mixed(shares))))


def eligible_servers(server: VirtualServer) -> list[RealKey]:
    """Return the real servers that take new connections, sorted."""
    return sorted(real for real, settings in server.real_servers.items() if settings.weight > 0)


def weight_unit(server: VirtualServer) -> int:
    """Return the weight that one slot stands for."""
    if server.scheduler in _EQUAL:
        return 1
    return math.gcd(*(settings.weight for settings in server.real_servers.values() if settings.weight > 0)) or 1


def _shares(server: VirtualServer) -> dict[RealKey, int]:
    """Return the number of slots of each real server that takes new connections."""
    divisor = weight_unit(server)
    equal = server.scheduler in _EQUAL
    return {real: 1 if equal else server.real_servers[real].weight // divisor for real in eligible_servers(server)}


def _hashed(key: VirtualKey, server: VirtualServer) -> str:
    """Return the nft expression to hash: the part of a packet that decides the real server."""
    ip = "ip6" if ":" in key.address else "ip"
    if server.scheduler is Scheduler.DH:
        return f"{ip} daddr"
    return f"{ip} saddr . {key.transport} sport" if SchedulerFlag.PORT in server.flags else f"{ip} saddr"


def _mixed(shares: Mapping[RealKey, int]) -> Iterator[RealKey]:
    """Yield each real server as often as its share, as evenly as possible (smooth weighted round robin)."""
    if len(set(shares.values())) == 1:
        yield from shares  # equal shares are all 1, since they were divided by their greatest common divisor
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
    """Join repetitions of a real server into runs."""
    last: RealKey | None = None
    count = 0
    for real in order:
        if real != last and last is not None:
            yield last, count
            count = 0
        last, count = real, count + 1
    if last is not None:
        yield last, count
