"""Which service would be left without an endpoint that serves. Pure."""

from collections.abc import Collection

from mesh.model.eligibility import serves, vip_of
from mesh.model.service import EndpointKey, Name
from mesh.model.view import ClusterView


def service_left_empty(view: ClusterView, going: Collection[EndpointKey]) -> Name | None:
    """Return the first service that loses its last serving endpoint if all of `going` leave; None if none does.

    `view` is the one that traffic follows. A service with a single endpoint does not count: whoever takes that one out
    knows what becomes of the service.
    """
    owners = {view.by_key[key].owner for key in going if key in view.by_key}
    for service in view.services:
        group = view.groups.get(service.owner) if service.owner in owners else None
        vip = vip_of(service, view)
        if group is None or vip is None or len(group.endpoints) == 1:
            continue
        serving = {endpoint.key for endpoint in group.endpoints if serves(service, endpoint, vip, view.health)}
        if serving and serving <= set(going):
            return service.name
    return None
