"""Computes the weights of endpoints from the shares of their releases, and while endpoints ramp. Pure.

An endpoint weighs share x own weight / sum of the own weights of its release, so that a release has its share whatever
the number of its endpoints. The weights are the smallest integers in this proportion. They are exact unless the largest
would exceed `MAX_WEIGHT`; then each is rounded, and the share of a release is off by less than one weight for each of
its endpoints.

* Releases that no share was given to share the rest by the sums of their weights, as all releases do without shares.
* A release without a serving endpoint gives its share to the others, in proportion to theirs. If they have none, those
  that no share was given to take all by their weights. A release that was given 0 never takes any.
* An endpoint that ramps (`mesh.control.slow_start`) has some tenths of its weight. With shares in force that divides
  its release and changes no share: the other endpoints of the release have what it lacks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from mesh.model.release_shares import WHOLE, ReleaseShares
from mesh.model.service import EndpointKey
from mesh.model.validation import MAX_WEIGHT

TENTHS = 10
"""The whole weight of an endpoint, in the unit of ramps."""


class ShareMember(NamedTuple):
    """One endpoint of a service whose weights are computed."""

    key: EndpointKey
    release: str
    """Empty for an endpoint without a release."""
    weight: int
    """Its own weight: by its label, or by an operator."""
    serves: bool
    """Whether new connections may go to it; its weight aside."""
    tenths: int = TENTHS
    """How much of its weight it has, from 1 to `TENTHS`: less than that while it ramps."""


class ReleaseShare(NamedTuple):
    """What one release of a service has of its new connections."""

    release: str
    """Empty for endpoints without a release."""
    endpoints: int
    """The number of its endpoints."""
    serving: int
    """The number of its endpoints that may serve."""
    given: int | None
    """The share that it was given, in hundredths of a per cent; None if none was, or if shares are not in force."""
    share: Fraction
    """The part of new connections that it has by its weights, from 0 to 1."""


class WeighedShares(NamedTuple):
    """The weights that follow from shares and ramps."""

    weights: Mapping[EndpointKey, int]
    """The weight of each endpoint; empty if shares are not in force and no endpoint ramps, so that own weights count.
    """
    releases: tuple[ReleaseShare, ...]
    """All releases that have endpoints, sorted by name."""
    in_force: bool = False
    """Whether shares are in force."""


def weigh(shares: ReleaseShares | None, members: Sequence[ShareMember]) -> WeighedShares:
    """Return the weights of the endpoints of one service. `shares`: None if its releases have none."""
    if shares is None or not shares.are_in_force(member.release for member in members):
        weights = _ramped(members)
        own = weights or {member.key: member.weight for member in members}
        return WeighedShares(weights, tuple(_rows(members, {}, own)))
    totals: dict[str, int] = {}
    ramped: dict[str, int] = {}
    for member in members:
        if member.serves and member.weight > 0:
            totals[member.release] = totals.get(member.release, 0) + member.weight
            ramped[member.release] = ramped.get(member.release, 0) + member.weight * member.tenths
    parts = release_parts(shares.given, totals)
    ideal = [
        Fraction(0)
        if member.weight <= 0 or not parts.get(member.release)
        else parts[member.release] * member.weight * member.tenths / ramped[member.release]
        for member in members
    ]
    counted = dict(zip((member.key for member in members), _integers(ideal, members), strict=True))
    return WeighedShares(counted, tuple(_rows(members, shares.given, counted)), in_force=True)


def _ramped(members: Sequence[ShareMember]) -> Mapping[EndpointKey, int]:
    """Return the weights of endpoints without shares, of which some ramp; empty if none does.

    All weights are multiplied alike for as long as one endpoint ramps, so that a step changes that endpoint alone.
    """
    if all(member.tenths == TENTHS for member in members):
        return {}
    scale = min(Fraction(1), Fraction(MAX_WEIGHT, TENTHS * max(1, *(member.weight for member in members))))
    return {
        member.key: max(1, round(member.weight * member.tenths * scale)) if member.weight else 0 for member in members
    }


def release_parts(given: Mapping[str, int], totals: Mapping[str, int]) -> Mapping[str, Fraction]:
    """Return the part of new connections of each release that serves. They sum up to 1, or are all 0.

    `given` are shares in hundredths of a per cent. `totals` are the sums of the own weights of the endpoints that
    serve; releases without one are missing.
    """
    named = {release: Fraction(given[release], WHOLE) for release in totals if release in given}
    others = {release: total for release, total in totals.items() if release not in given}
    rest = 1 - Fraction(sum(given.values()), WHOLE)
    whole = sum(others.values())
    parts = {**named, **{release: rest * total / whole for release, total in others.items()}}
    if not sum(parts.values()) and whole:
        parts = {**parts, **{release: Fraction(total, whole) for release, total in others.items()}}
    taken = sum(parts.values())
    return {release: part / taken for release, part in parts.items()} if taken else parts


def _integers(ideal: Sequence[Fraction], members: Sequence[ShareMember]) -> list[int]:
    """Return the smallest integers in the proportion of `ideal`; where they would be too large, rounded ones.

    An endpoint that does not serve has what it would have if it served as well, so that its weight does not say 0.
    """
    serving = [part for part, member in zip(ideal, members, strict=True) if member.serves and part]
    if not serving:
        return [0 if not part else 1 for part in ideal]
    scale = Fraction(math.lcm(*(part.denominator for part in serving)))
    scale /= math.gcd(*(int(part * scale) for part in serving))
    scale = min(scale, MAX_WEIGHT / max(serving))
    # Only a share or a weight of 0 takes an endpoint out of traffic.
    return [min(MAX_WEIGHT, max(1, round(part * scale))) if part else 0 for part in ideal]


def _rows(
    members: Sequence[ShareMember], given: Mapping[str, int], weights: Mapping[EndpointKey, int]
) -> Iterable[ReleaseShare]:
    whole = sum(weights[member.key] for member in members if member.serves)
    for release in sorted({member.release for member in members}):
        own = [member for member in members if member.release == release]
        serving = [member for member in own if member.serves and weights[member.key]]
        part = Fraction(sum(weights[member.key] for member in serving), whole) if whole else Fraction(0)
        yield ReleaseShare(release, len(own), len(serving), given.get(release), part)
