"""Selects the real server of a new connection: IPVS's schedulers and persistence, as far as a proxy needs them.

The code does no I/O and reads no clock: connections and time are passed in. Where IPVS has schedulers that differ only
in details of the kernel, one stands for all of them: `sh` for `mh` and `dh`, and `wlc` for `sed` and `nq`. Hashing
always falls back to another real server. With the flag `port`, hashing schedulers take turns, which also spreads the
connections of one client.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from hashlib import blake2b
from types import MappingProxyType

from mesh.model.service import Address, Scheduler, SchedulerFlag
from mesh.model.table import RealKey, RealServer

_BY_HASH = {Scheduler.SH, Scheduler.MH, Scheduler.DH}
_BY_LOAD = {Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ}
_UNWEIGHTED = {Scheduler.RR, Scheduler.LC}


class RealServerScheduler:
    """Selects real servers for one virtual server. Its real servers and settings may be replaced at any time."""

    def __init__(
        self,
        scheduler: Scheduler = Scheduler.WRR,
        persistence: int = 0,
        real_servers: Mapping[RealKey, RealServer] = MappingProxyType({}),
        flags: frozenset[SchedulerFlag] = frozenset(),
    ) -> None:
        self.scheduler = scheduler
        self.flags = flags
        self.persistence = persistence
        """Seconds for which a client stays with its real server after its last connection; 0 for no persistence."""
        self.real_servers = real_servers
        self.active: Counter[RealKey] = Counter()
        """Open connections of each real server, which the code that opens and closes them must update."""
        self._full: set[RealKey] = set()
        """Real servers that reached their upper threshold and have not fallen below the lower one since."""
        self._credit: dict[RealKey, int] = {}
        """The credit of each real server in weighted round robin."""
        self._sticky: dict[Address, tuple[RealKey, float]] = {}
        """By client: its real server, and the time until which it stays with it."""

    def pick(self, client: Address, now: float, without: Collection[RealKey] = ()) -> RealKey | None:
        """Return the real server for a new connection; None if none with a positive weight is available.

        `without` are real servers that have just refused this connection. `now` is in seconds of any monotonic clock.
        """
        usable = {
            real: settings.weight
            for real, settings in self.real_servers.items()
            if settings.weight > 0 and real not in without and not self._is_full(real, settings)
        }
        if not usable:
            return None
        chosen = self._stuck(client, now, usable) or self._schedule(client, usable)
        if self.persistence:
            self._sticky[client] = (chosen, now + self.persistence)
        return chosen

    def _is_full(self, real: RealKey, settings: RealServer) -> bool:
        """Return whether a real server has reached its upper threshold and not fallen below the lower one since.

        This follows ipvsadm(8), options -x and -y.
        """
        upper, active = settings.upper_threshold, self.active[real]
        # Without a lower threshold, IPVS uses three quarters of the upper one.
        low = active < settings.lower_threshold if settings.lower_threshold else active * 4 < upper * 3
        if not upper or low:
            self._full.discard(real)
        elif active >= upper:
            self._full.add(real)
        return real in self._full

    def _stuck(self, client: Address, now: float, usable: Mapping[RealKey, int]) -> RealKey | None:
        """Return the real server that persistence selects; None if there is none or it is not usable."""
        if not self.persistence:
            self._sticky.clear()
            return None
        if len(self._sticky) > 65536:  # old entries cost memory only, until there are many
            self._sticky = {who: kept for who, kept in self._sticky.items() if kept[1] > now}
        real, until = self._sticky.get(client, (None, 0.0))
        return real if until > now and real in usable else None

    def _schedule(self, client: Address, usable: Mapping[RealKey, int]) -> RealKey:
        """Return the real server that the scheduler selects."""
        if self.scheduler in _BY_HASH and SchedulerFlag.PORT not in self.flags:
            return _by_hash(client, usable)
        weights = dict.fromkeys(usable, 1) if self.scheduler in _UNWEIGHTED else usable
        if self.scheduler in _BY_LOAD:
            return min(weights, key=lambda real: ((self.active[real] + 1) / weights[real], real))
        return self._in_turn(weights)

    def _in_turn(self, weights: Mapping[RealKey, int]) -> RealKey:
        """Select by smooth weighted round robin.

        In each turn every real server gains its weight as credit, and the one with the most credit pays for the turn.
        """
        # Weights that were larger before must not leave more credit than one turn gives.
        whole = sum(weights.values())
        before = {real: min(whole, max(-whole, self._credit.get(real, 0))) for real in weights}
        self._credit = {real: before[real] + weight for real, weight in weights.items()}
        chosen = max(sorted(self._credit), key=self._credit.__getitem__)
        self._credit[chosen] -= whole
        return chosen


def _by_hash(client: Address, usable: Mapping[RealKey, int]) -> RealKey:
    """Weighted rendezvous hashing: only the clients of a real server that leaves are moved."""

    def odds(real: RealKey) -> float:
        digest = blake2b(f"{client} {real}".encode(), digest_size=8).digest()
        return float(((int.from_bytes(digest) + 1) / 2**64) ** (1 / usable[real]))

    return max(sorted(usable), key=odds)
