"""Gives the endpoints of services whose releases have shares, or of which some ramp, the weights that follow. Pure.

It is the last step of the view pipeline: weights depend on which endpoints serve. Other services cost nothing.
Parts that have not changed are the same objects as in the result before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from mesh.control.shares import TENTHS, ReleaseShare, ShareMember, WeighedShares, weigh
from mesh.model.eligibility import is_same_family, takes_traffic, vip_of
from mesh.model.persistent_map import PersistentMap
from mesh.model.release_rollout import guarded_shares
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Address, Endpoint, EndpointKey, Health, Service
from mesh.model.view import ClusterView, EndpointGroup

Ramps: TypeAlias = Mapping[str, Mapping[EndpointKey, int]]
"""How many tenths of its weight each endpoint that ramps has, by owner."""
_NONE: Ramps = MappingProxyType({})


class _GroupInputs(NamedTuple):
    """What the weights of one service depend on."""

    service: Service
    vip: Address
    shares: ReleaseShares | None
    group: EndpointGroup
    ramps: Mapping[EndpointKey, int]


class _WeighedGroup(NamedTuple):
    inputs: _GroupInputs
    weighed: WeighedShares
    group: EndpointGroup
    """The group with the weights."""
    settled: Mapping[EndpointKey, int] | None
    """The weights that the endpoints would have if none of them ramped; None if none does."""


@dataclass(frozen=True, slots=True)
class ShareOverlay:
    """A view, and the same view with the weights that follow from shares and ramps."""

    base: ClusterView = field(default_factory=ClusterView)
    view: ClusterView = field(default_factory=ClusterView)
    """The same object as `base` if no service has shares in force, and no endpoint ramps."""
    weighed: Mapping[str, WeighedShares] = field(default_factory=dict)
    """The weights of each service for which shares are in force, by owner."""
    ramps: Ramps = field(default_factory=dict)
    _groups: Mapping[str, _WeighedGroup] = field(default_factory=dict)

    def after(self, view: ClusterView, ramps: Ramps = _NONE) -> "ShareOverlay":
        """The overlay for the newest view, which has the verdicts that traffic follows, and for these ramps."""
        if view is self.base and ramps == self.ramps:
            return self
        if not view.shares and not view.rollouts and not ramps:
            return ShareOverlay(view, view)
        groups: dict[str, _WeighedGroup] = {}
        services = {service.owner: service for service in view.services}
        for owner in dict.fromkeys((*view.shares, *view.rollouts, *ramps)):
            shares = counting_shares(owner, view)
            if shares is None and owner not in ramps:
                continue
            inputs = _inputs(services.get(owner), view, owner, shares, ramps.get(owner, {}))
            if inputs is None:
                continue
            known = self._groups.get(owner)
            groups[owner] = known if known is not None and known.inputs == inputs else _weighed(inputs)
        groups = {owner: each for owner, each in groups.items() if each.weighed.weights}
        weighed = {owner: each.weighed for owner, each in groups.items() if each.weighed.in_force}
        return ShareOverlay(view, self._applied(view, groups), weighed, ramps, groups)

    @property
    def settled(self) -> Mapping[str, Mapping[EndpointKey, int]]:
        """The weights that endpoints would have if none ramped, by owner, of the services of which some do."""
        return {owner: each.settled for owner, each in self._groups.items() if each.settled is not None}

    def given(self, owner: str) -> ReleaseShares:
        """Return the shares that are in force for a service. Raises `KeyError` if none are."""
        shares = self._groups[owner].inputs.shares
        if shares is None:
            raise KeyError(owner)
        return shares

    def has_share(self, endpoint: Endpoint) -> bool:
        """Return whether the shares leave an endpoint any new connection, should it serve."""
        weighed = self.weighed.get(endpoint.owner)
        return weighed is None or weighed.weights.get(endpoint.key, 0) > 0

    def releases(self, service: Service) -> tuple[ReleaseShare, ...]:
        """Return the releases of a service with their parts of new connections; empty if it has no endpoint that names
        one, or no VIP.
        """
        if service.owner in self.weighed:
            return self.weighed[service.owner].releases
        ramping = self._groups.get(service.owner)
        group, vip = self.base.groups.get(service.owner), vip_of(service, self.base)
        if group is None or vip is None or not any(endpoint.release for endpoint in group.endpoints):
            return ()
        if ramping is not None:
            return ramping.weighed.releases
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


def counting_shares(owner: str, view: ClusterView) -> ReleaseShares | None:
    """Return the shares that count for a service: those of the store, and what a rollout does not know has none of it.

    None: its weights count.
    """
    shares, rollout = view.shares.get(owner), view.rollouts.get(owner)
    if rollout is None:
        return shares
    group = view.groups.get(owner)
    return guarded_shares(rollout, shares, () if group is None else {each.release or "" for each in group.endpoints})


def _inputs(
    service: Service | None,
    view: ClusterView,
    owner: str,
    shares: ReleaseShares | None,
    ramps: Mapping[EndpointKey, int],
) -> _GroupInputs | None:
    """What the weights of a service depend on; None for a service that is gone, or has no VIP or no endpoint."""
    vip = None if service is None else vip_of(service, view)
    group = view.groups.get(owner)
    if service is None or vip is None or group is None:
        return None
    return _GroupInputs(service, vip, shares, group, ramps)


def _same_groups(groups: Mapping[str, _WeighedGroup], before: Mapping[str, _WeighedGroup]) -> bool:
    return groups.keys() == before.keys() and all(
        each.group.endpoints is before[owner].group.endpoints for owner, each in groups.items()
    )


def _weighed(inputs: _GroupInputs) -> _WeighedGroup:
    service, vip, shares, group, ramps = inputs
    own = share_members(service, vip, group)
    members = [each._replace(tenths=ramps.get(each.key, TENTHS)) for each in own] if ramps else own
    weighed = weigh(shares, members)
    endpoints = tuple(_with_weight(endpoint, weighed.weights) for endpoint in group.endpoints)
    settled = None
    if ramps:
        settled = weigh(shares, own).weights or {endpoint.key: endpoint.weight for endpoint in group.endpoints}
    return _WeighedGroup(inputs, weighed, EndpointGroup(endpoints, group.verdicts), settled)


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
