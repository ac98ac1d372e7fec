"""What a worker knows of its own endpoints before, and without, the store.

That a container is being stopped, or that a probe failed, is known here first, and it must not wait for the store to
say it back: a store may be slow, or gone. So each pass looks at the cluster's picture with the own endpoints brought up
to date. Of what runs only what takes traffic away is taken from here; what appears goes through the store, which gives
it a VIP and a name. Of health the own probes alone count. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.service import Endpoint, EndpointKey, Health, Instance
from mesh.model.view import ClusterView, EndpointGroup, group_endpoints


@dataclass(frozen=True, slots=True)
class LocalOverlay:
    """What differs for the own endpoints of one worker; made from one picture to the next by what has changed."""

    worker: str
    view: ClusterView = field(default_factory=ClusterView)
    here: Mapping[str, Instance] | None = None
    """What runs, by endpoint id; None: not all sources have answered yet."""
    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """What the own probes say; those of other workers' endpoints are passed over."""
    endpoints: Mapping[EndpointKey, Endpoint | None] = field(default_factory=dict)
    """Those that are not as in the view; None: it runs no more."""
    verdicts: Mapping[EndpointKey, Health | None] = field(default_factory=dict)
    """The same of the verdicts; None: there is none."""

    def after(
        self, view: ClusterView, here: Mapping[str, Instance] | None, health: Mapping[EndpointKey, Health]
    ) -> "LocalOverlay":
        """With the newest of all three. What is as before shall be the same object."""
        keys = changed_keys(self.view.by_key, view.by_key) | changed_keys(self.view.health, view.health)
        if health is not self.health:
            keys |= changed_keys(self.health, health)
        own = {id for worker, id in keys if worker == self.worker}
        if (self.here is None) != (here is None):
            own |= {id for worker, id in view.by_key if worker == self.worker}
        elif here is not None and self.here is not here:
            own |= changed_keys(self.here or {}, here)
        endpoints, verdicts = dict(self.endpoints), dict(self.verdicts)
        for id in own:
            key = self.worker, id
            endpoints.pop(key, None)
            verdicts.pop(key, None)
            known = view.by_key.get(key)
            if known is None:
                continue
            now = known if here is None else _now(known, here.get(id))
            if now is not known:
                endpoints[key] = now
            verdict = health.get(key)
            verdict = None if verdict is Health.STARTING else verdict  # which is not told to the others either
            if view.health.get(key) is not verdict:
                verdicts[key] = verdict
        return LocalOverlay(self.worker, view, here, health, endpoints, verdicts)

    def picture(self) -> ClusterView:
        """The view without own endpoints that run no more, with the drains of those that run, and with own verdicts.

        Where nothing differs it is the same view.
        """
        view, changed = self.view, self.endpoints
        if not changed and not self.verdicts:
            return view
        health = PersistentMap.of(view.health).changed(self.verdicts)
        groups: dict[str, EndpointGroup | None] = {}
        for owner in {view.by_key[key].owner for key in changed.keys() | self.verdicts.keys()}:
            members = [changed.get(endpoint.key, endpoint) for endpoint in view.groups[owner].endpoints]
            groups[owner] = group_endpoints(filter(None, members), health) if any(members) else None
        grouped = PersistentMap.of(view.groups).changed(groups)
        if not changed:
            return view.with_health(health, grouped)
        me = self.worker
        kept = [changed.get(e.key, e) if e.worker == me else e for e in view.endpoints]
        endpoints = tuple(endpoint for endpoint in kept if endpoint is not None)
        return view.with_endpoints(endpoints, grouped, PersistentMap.of(view.by_key).changed(changed), health)


def _now(endpoint: Endpoint, instance: Instance | None) -> Endpoint | None:
    if instance is None:
        return None
    if (endpoint.drain, endpoint.health) == (instance.drain, instance.health):
        return endpoint
    return replace(endpoint, drain=instance.drain, health=instance.health)


def known_health(view: ClusterView, worker: str, probed: Mapping[EndpointKey, Health]) -> Mapping[EndpointKey, Health]:
    """What the other workers say of their endpoints, and this one's probes of its own."""
    others = {key: health for key, health in view.health.items() if key[0] != worker}
    return others | {key: health for key, health in probed.items() if key[0] == worker}
