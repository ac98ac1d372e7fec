"""Which real server takes the next connection: IPVS's schedulers and persistence, as far as a proxy needs them.

No I/O and no clock: connections and time are told. Where IPVS has two schedulers that differ only in details of the
kernel, one stands for both: `mh` and `dh` are `sh` here, `sed` and `nq` are `wlc`. Hashing always falls back, and with
the flag `port` takes turns, which spreads the connections of a client as well.
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
    """The choice for one virtual server. The real servers and the settings may be replaced at any time."""

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
        """Seconds for which a client stays with its real server after it was last seen; 0: none."""
        self.real_servers = real_servers
        self.active: Counter[RealKey] = Counter()
        """Connections that are open now; kept by whoever opens them."""
        self._full: set[RealKey] = set()
        self._credit: dict[RealKey, int] = {}
        self._sticky: dict[Address, tuple[RealKey, float]] = {}

    def pick(self, client: Address, now: float, without: Collection[RealKey] = ()) -> RealKey | None:
        """The real server for a new connection; None: there is none of positive weight outside of `without`.

        `without` are those that have just refused it. `now` is in seconds of any clock that never goes back.
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
        """Whether it has reached the upper threshold, and not come down from it yet: ipvsadm(8), -x and -y."""
        upper, active = settings.upper_threshold, self.active[real]
        low = active < settings.lower_threshold if settings.lower_threshold else active * 4 < upper * 3
        if not upper or low:
            self._full.discard(real)
        elif active >= upper:
            self._full.add(real)
        return real in self._full

    def _stuck(self, client: Address, now: float, usable: Mapping[RealKey, int]) -> RealKey | None:
        if not self.persistence:
            self._sticky.clear()
            return None
        if len(self._sticky) > 65536:  # old entries cost memory only, until there are many
            self._sticky = {who: kept for who, kept in self._sticky.items() if kept[1] > now}
        real, until = self._sticky.get(client, (None, 0.0))
        return real if until > now and real in usable else None

    def _schedule(self, client: Address, usable: Mapping[RealKey, int]) -> RealKey:
        if self.scheduler in _BY_HASH and SchedulerFlag.PORT not in self.flags:
            return _by_hash(client, usable)
        weights = dict.fromkeys(usable, 1) if self.scheduler in _UNWEIGHTED else usable
        if self.scheduler in _BY_LOAD:
            return min(weights, key=lambda real: ((self.active[real] + 1) / weights[real], real))
        return self._in_turn(weights)

    def _in_turn(self, weights: Mapping[RealKey, int]) -> RealKey:
        """Smooth weighted round robin: each turn everyone earns its weight, and the richest pays for the turn."""
        self._credit = {real: self._credit.get(real, 0) + weight for real, weight in weights.items()}
        chosen = max(sorted(self._credit), key=self._credit.__getitem__)
        self._credit[chosen] -= sum(weights.values())
        return chosen


def _by_hash(client: Address, usable: Mapping[RealKey, int]) -> RealKey:
    """Rendezvous hashing: a real server that goes moves only its own clients (weights raise the odds)."""

    def odds(real: RealKey) -> float:
        digest = blake2b(f"{client} {real}".encode(), digest_size=8).digest()
        return float(((int.from_bytes(digest) + 1) / 2**64) ** (1 / usable[real]))

    return max(sorted(usable), key=odds)
