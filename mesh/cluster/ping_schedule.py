"""Whom a worker asks in its next round. Pure.

Few workers ask one another in every round. Of many, each round has a share, those first that have waited longest, so
that the questions in a second stay below `PINGS_PER_SECOND` however large the cluster is. A loss must not wait for
that: whatever is in doubt is asked in every round beside the share. Should half of a large cluster go at once, even
that would be too much, so a round has room for `MAX_DOUBTFUL_PINGS` of it: those first that have missed most and are
not settled yet. So the first of them are out after as many rounds as ever, and the last ones when all had room, instead
of all of them then.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mesh.cluster.failure_detector import MISSES_BEFORE_LOST, DetectorState, PingTarget
from mesh.model.service import EndpointKey
from mesh.model.table import RealKey

PINGS_PER_SECOND = 300
"""Questions in a second of those whose turn it is: with more than sixty workers it is not everybody's in each round."""
MAX_DOUBTFUL_PINGS = 512
"""Questions in one round to whatever is in doubt."""


@dataclass(frozen=True, slots=True)
class PingPlan:
    """In one round."""

    turn: tuple[RealKey, ...]
    """Whose turn it is."""
    again: tuple[RealKey, ...]
    """Those in doubt whose turn it is not."""


def plan_pings(
    known: DetectorState,
    workers: Mapping[str, RealKey],
    endpoints: Mapping[EndpointKey, PingTarget],
    witnesses: Collection[RealKey],
    *,
    last: Mapping[RealKey, float],
    seconds: float,
) -> PingPlan:
    """Whom to ask now.

    `endpoints` are those of the workers in doubt. `witnesses` have a turn while anybody is in doubt: only then their
    answers matter, and with TLS etcd logs each connection that says nothing. `last` is when each was asked, in any
    order for those that were not yet; `seconds` is the time since the last round.
    """
    share = math.ceil(PINGS_PER_SECOND * seconds)
    turn = _waiting({*workers.values(), *(witnesses if known.doubtful else ())}, last)[:share]
    misses = {workers[worker]: missed for worker, missed in known.misses.items() if missed and worker in workers}
    for key, place in endpoints.items():
        misses[place.real] = max(misses.get(place.real, 0), known.endpoints.get(key, 0))
    asked = frozenset(turn)
    new = {place.real for key, place in endpoints.items() if key not in known.endpoints}
    open_ = [
        real
        for real, missed in misses.items()
        if (real in new or 0 < missed < MISSES_BEFORE_LOST) and real not in asked
    ]
    if len(open_) > MAX_DOUBTFUL_PINGS:
        open_ = sorted(open_, key=lambda real: (-misses[real], last.get(real, -math.inf)))[:MAX_DOUBTFUL_PINGS]
    settled = _waiting(misses.keys() - asked - new.union(open_), last)[: min(share, MAX_DOUBTFUL_PINGS - len(open_))]
    return PingPlan(tuple(turn), (*open_, *settled))


def _waiting(reals: Collection[RealKey], last: Mapping[RealKey, float]) -> list[RealKey]:
    """Those that have waited longest first."""
    return sorted(reals, key=lambda real: last.get(real, -math.inf))
