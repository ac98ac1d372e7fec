"""Gives the endpoints of services whose releases have shares the weights that follow. Pure.

It is the last step of the view pipeline: weights depend on which endpoints serve. Services without shares cost nothing.
Parts that have not changed are the same objects as in the result before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.control.shares import ReleaseShare, ShareMember, WeighedShares, weigh
from mesh.model.eligibility import is_same_family, takes_traffic, vip_of
from mesh.model.persistent_map import PersistentMap
from mesh.model.release_rollout import guarded_shares
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Address, Endpoint, EndpointKey, Health, Service
from mesh.model.view import ClusterView, EndpointGroup


class _GroupInputs(NamedTuple):
    """What the weights of one service depend on."""

    service: Service
    vip: Address
    shares: ReleaseShares
    group: EndpointGroup


class _WeighedGroup(NamedTuple):
    inputs: _GroupInputs
    weighed: WeighedShares
    group: EndpointGroup
    """The group with the weights."""


@dataclass(frozen=True, slots=True)
class ShareOverlay:
    """A view, and the same view with the weights that follow from shares."""

    base: ClusterView = field(default_factory=ClusterView)
    view: ClusterView = field(default_factory=ClusterView)
    """The same object as `base` if no service has shares in force."""
    weighed: Mapping[str, WeighedShares] = field(default_factory=dict)
    """The weights of each service for which shares are in force, by owner."""
    _groups: Mapping[str, _WeighedGroup] = field(default_factory=dict)

    def after(self, view: ClusterView) -> "ShareOverlay":
        """The overlay for the newest view, which has the verdicts that traffic follows."""
        if view is self.base:
            return self
        if not view.shares and not view.rollouts:
            return ShareOverlay(view, view)
        groups: dict[str, _WeighedGroup] = {}
        services = {service.owner: service for service in view.services}
        for owner, shares in _counting(view):
            inputs = _inputs(services.get(owner), shares, view)
            if inputs is None:
                continue
            known = self._groups.get(owner)
            groups[owner] = known if known is not None and known.inputs == inputs else _weighed(inputs)
        groups = {owner: each for owner, each in groups.items() if each.weighed.weights}
        weighed = {owner: each.weighed for owner, each in groups.items()}
        return ShareOverlay(view, self._applied(view, groups), weighed, groups)

    def given(self, owner: str) -> ReleaseShares:
        """Return the shares that are in force for a service. Raises `KeyError` if none are."""
        return self._groups[owner].inputs.shares

    def has_share(self, endpoint: Endpoint) -> bool:
        """Return whether the shares leave an endpoint any new connection, should it serve."""
        weighed = self.weighed.get(endpoint.owner)
        return weighed is None or weighed.weights.get(endpoint.key, 0) > 0

    def releases(self, service: Service) -> tuple[ReleaseShare, ...]:
        """Return the releases of a service with their parts of new connections; empty if it has no endpoint that names
        one, or no VIP.
        """
        if (known := self.weighed.get(service.owner)) is not None:
            return known.releases
        group, vip = self.base.groups.get(service.owner), vip_of(service, self.base)
        if group is None or vip is None or not any(endpoint.release for endpoint in group.endpoints):
            return ()
        return weigh(None, share_members(service, vip, group)).releases

    def _applied(self, view: ClusterView, groups: Mapping[str, _WeighedGroup]) -> ClusterView:
        if not groups:
            return view
        changed: dict[EndpointKey, Endpoint] = {
            endpoint.key: endpoint for each in groups.values() for endpoint in each.group.endpoints
        }
        if view.endpoints is self.base.endpoints and _same_groups(groups, self._groups):
            endpoints = self.view.endpoints
        else:
            endpoints = tuple(changed.get(endpoint.key, endpoint) for endpoint in view.endpoints)
        grouped = PersistentMap.of(view.groups).changed({owner: each.group for owner, each in groups.items()})
        return view.with_endpoints(endpoints, grouped, PersistentMap.of(view.by_key).changed(changed))


def _counting(view: ClusterView) -> Iterator[tuple[str, ReleaseShares]]:
    """Yield the shares that count by owner: those of the store, and those that keep what a rollout does not know."""
    yield from ((owner, shares) for owner, shares in view.shares.items() if owner not in view.rollouts)
    for owner, rollout in view.rollouts.items():
        group = view.groups.get(owner)
        releases = () if group is None else {endpoint.release or "" for endpoint in group.endpoints}
        shares = guarded_shares(rollout, view.shares.get(owner), releases)
        if shares is not None:
            yield owner, shares


def _inputs(service: Service | None, shares: ReleaseShares, view: ClusterView) -> _GroupInputs | None:
    """What the weights of a service depend on; None for a service that is gone, or has no VIP or no endpoint."""
    vip = None if service is None else vip_of(service, view)
    group = view.groups.get(shares.owner)
    return None if service is None or vip is None or group is None else _GroupInputs(service, vip, shares, group)


def _same_groups(groups: Mapping[str, _WeighedGroup], before: Mapping[str, _WeighedGroup]) -> bool:
    return groups.keys() == before.keys() and all(
        each.group.endpoints is before[owner].group.endpoints for owner, each in groups.items()
    )


def _weighed(inputs: _GroupInputs) -> _WeighedGroup:
    service, vip, shares, group = inputs
    weighed = weigh(shares, share_members(service, vip, group))
    members = tuple(_with_weight(endpoint, weighed.weights) for endpoint in group.endpoints)
    return _WeighedGroup(inputs, weighed, EndpointGroup(members, group.verdicts))


def share_members(service: Service, vip: Address, group: EndpointGroup) -> list[ShareMember]:
    """The endpoints of a service as their weights are computed from them."""
    health = {
        endpoint.key: verdict
        for endpoint, verdict in zip(group.endpoints, group.verdicts, strict=True)
        if verdict is not None
    }
    return [ShareMember(e.key, e.release or "", e.weight, _serves(service, e, vip, health)) for e in group.endpoints]


def _serves(service: Service, endpoint: Endpoint, vip: Address, health: Mapping[EndpointKey, Health]) -> bool:
    return takes_traffic(service, endpoint, health) and is_same_family(endpoint, vip)


def _with_weight(endpoint: Endpoint, weights: Mapping[EndpointKey, int]) -> Endpoint:
    weight = weights.get(endpoint.key, endpoint.weight)
    return endpoint if weight == endpoint.weight else endpoint.with_weight(weight, endpoint.asked_weight)
