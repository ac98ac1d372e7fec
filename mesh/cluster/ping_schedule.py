"""Chooses the targets of the next ping round. Pure.

A few workers ping one another in every round. In a large cluster each round pings only a part of them, those that have
waited longest, so that the rate stays below `PINGS_PER_SECOND` however large the cluster is. Detecting a loss must not
wait for that: targets in doubt are pinged in every round, in addition. If half of a large cluster fails at once, even
that would be too much, so a round pings at most `MAX_DOUBTFUL_PINGS` of them: first those that have missed most and are
not lost yet. So the first of them are lost after the usual number of rounds and the last ones when all had their turn,
instead of all of them at the end.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mesh.cluster.failure_detector import MISSES_BEFORE_LOST, DetectorState, PingTarget
from mesh.model.service import EndpointKey
from mesh.model.table import RealKey

PINGS_PER_SECOND = 300
"""Pings per second of targets whose turn it is: with more than sixty workers not every worker has a turn in each round.
"""
MAX_DOUBTFUL_PINGS = 512
"""Pings per round of targets in doubt."""


@dataclass(frozen=True, slots=True)
class PingPlan:
    """The targets of one round."""

    turn: tuple[RealKey, ...]
    """Targets whose turn it is."""
    again: tuple[RealKey, ...]
    """Targets in doubt whose turn it is not."""


def plan_pings(
    state: DetectorState,
    workers: Mapping[str, RealKey],
    endpoints: Mapping[EndpointKey, PingTarget],
    witnesses: Collection[RealKey],
    *,
    last: Mapping[RealKey, float],
    seconds: float,
) -> PingPlan:
    """Choose the targets of a round.

    `endpoints` are the endpoints of workers in doubt. `witnesses` have a turn while a worker is in doubt: only then
    their answers matter, and with TLS etcd logs each connection that sends nothing. `last` is when each target was
    pinged last; targets without an entry come first, in any order. `seconds` is the time since the last round.
    """
    limit = math.ceil(PINGS_PER_SECOND * seconds)
    turn = _waiting({*workers.values(), *(witnesses if state.doubtful else ())}, last)[:limit]
    misses = {workers[worker]: missed for worker, missed in state.misses.items() if missed and worker in workers}
    for key, place in endpoints.items():
        misses[place.real] = max(misses.get(place.real, 0), state.endpoints.get(key, 0))
    chosen = frozenset(turn)
    new = {place.real for key, place in endpoints.items() if key not in state.endpoints}
    undecided = [
        real
        for real, missed in misses.items()
        if (real in new or 0 < missed < MISSES_BEFORE_LOST) and real not in chosen
    ]
    if len(undecided) > MAX_DOUBTFUL_PINGS:
        undecided = sorted(undecided, key=lambda real: (-misses[real], last.get(real, -math.inf)))[:MAX_DOUBTFUL_PINGS]
    settled = _waiting(misses.keys() - chosen - new.union(undecided), last)[
        : min(limit, MAX_DOUBTFUL_PINGS - len(undecided))
    ]
    return PingPlan(tuple(turn), (*undecided, *settled))


def _waiting(reals: Collection[RealKey], last: Mapping[RealKey, float]) -> list[RealKey]:
    """The targets in order of their waiting time, longest first."""
    return sorted(reals, key=lambda real: last.get(real, -math.inf))
