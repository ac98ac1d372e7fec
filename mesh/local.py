"""What a worker knows of its own endpoints before, and without, the store.

That a container is being stopped, or that a probe failed, is known here first, and it must not wait for the store to
say it back: a store may be slow, or gone. So each pass looks at the cluster's picture with the own endpoints brought up
to date. Of what runs only what takes traffic away is taken from here; what appears goes through the store, which gives
it a VIP and a name. Of health the own probes alone count. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mesh.model import ClusterView, Endpoint, EndpointKey, Group, Health, Instance, group
from meshdns.sharded import ShardedMap


def own_endpoints(view: ClusterView, worker: str) -> tuple[Endpoint, ...]:
    """Those of one worker."""
    return tuple(endpoint for endpoint in view.endpoints if endpoint.worker == worker)


def up_to_date(
    view: ClusterView,
    own: Iterable[Endpoint],
    instances: Iterable[Instance] | None,
    health: Mapping[str, Health],
) -> ClusterView:
    """The view without own endpoints that run no more, with the drains of those that run, and with own verdicts.

    `own` are the view's endpoints of this worker; `instances` those of every source of this worker, None while not all
    of them have answered; `health` what its probes say, by id. Where nothing differs it is the same view.
    """
    here = None if instances is None else {instance.id: instance for instance in instances}
    changed: dict[EndpointKey, Endpoint | None] = {}
    verdicts: dict[EndpointKey, Health | None] = {}
    owners: set[str] = set()
    for endpoint in own:
        if here is not None:
            now = _now(endpoint, here.get(endpoint.id))
            if now is not endpoint:
                changed[endpoint.key] = now
                owners.add(endpoint.owner)
        verdict = health.get(endpoint.id)
        verdict = None if verdict is Health.STARTING else verdict  # which is not told to the others either
        if view.health.get(endpoint.key) is not verdict:
            verdicts[endpoint.key] = verdict
            owners.add(endpoint.owner)
    return _with(view, owners, changed, verdicts) if owners else view


def _now(endpoint: Endpoint, instance: Instance | None) -> Endpoint | None:
    if instance is None:
        return None
    if (endpoint.drain, endpoint.health) == (instance.drain, instance.health):
        return endpoint
    return replace(endpoint, drain=instance.drain, health=instance.health)


def _with(
    view: ClusterView,
    owners: Iterable[str],
    changed: Mapping[EndpointKey, Endpoint | None],
    verdicts: Mapping[EndpointKey, Health | None],
) -> ClusterView:
    health = ShardedMap(view.health).changed(verdicts)
    groups: dict[str, Group | None] = {}
    for owner in owners:
        members = [changed.get(endpoint.key, endpoint) for endpoint in view.groups[owner].endpoints]
        groups[owner] = group(filter(None, members), health) if any(members) else None
    endpoints = view.endpoints
    if changed:
        kept = (changed.get(endpoint.key, endpoint) for endpoint in view.endpoints)
        endpoints = tuple(endpoint for endpoint in kept if endpoint is not None)
    return view.regrouped(ShardedMap(view.groups).changed(groups), endpoints=endpoints, health=health)


def health_of(view: ClusterView, worker: str, probed: Mapping[str, Health]) -> Mapping[EndpointKey, Health]:
    """What the other workers say of their endpoints, and this one's probes (by endpoint id) of its own."""
    others = {key: health for key, health in view.health.items() if key[0] != worker}
    return others | {(worker, id): health for id, health in probed.items()}
