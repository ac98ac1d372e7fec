"""Lays the state of this worker's own endpoints over the cluster view, without waiting for the store. Pure.

This worker is the first to know that one of its containers is being stopped or that a probe failed, and must not wait
until the store returns that: the store may be slow or unreachable. So each pass uses the cluster view with the own
endpoints brought up to date. For instances only changes that take traffic away are applied; a new instance goes through
the store, which gives it a VIP and a name. For health only the own probes count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.service import Endpoint, EndpointKey, Health, Instance, same_run
from mesh.model.view import ClusterView, EndpointGroup, group_endpoints
from mesh.model.weight import effective_weight


@dataclass(frozen=True, slots=True)
class LocalOverlay:
    """The differences between the view and the current state of one worker's own endpoints, updated incrementally."""

    worker: str
    view: ClusterView = field(default_factory=ClusterView)
    instances: Mapping[str, Instance] | None = None
    """The running instances by endpoint ID; None until all sources have answered once."""
    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """Health by this worker's probes; endpoints of other workers are ignored."""
    endpoints: Mapping[EndpointKey, Endpoint | None] = field(default_factory=dict)
    """Endpoints that differ from the view; None for an endpoint that no longer runs."""
    verdicts: Mapping[EndpointKey, Health | None] = field(default_factory=dict)
    """Verdicts that differ from the view; None for an endpoint without a verdict."""

    def after(
        self, view: ClusterView, instances: Mapping[str, Instance] | None, health: Mapping[EndpointKey, Health]
    ) -> "LocalOverlay":
        """The overlay for the newest view, instances and health. Pass the same objects where nothing has changed."""
        keys = changed_keys(self.view.by_key, view.by_key) | changed_keys(self.view.health, view.health)
        if health is not self.health:
            keys |= changed_keys(self.health, health)
        own = {id for worker, id in keys if worker == self.worker}
        if (self.instances is None) != (instances is None):
            own |= {id for worker, id in view.by_key if worker == self.worker}
        elif instances is not None and self.instances is not instances:
            own |= changed_keys(self.instances or {}, instances)
        endpoints, verdicts = dict(self.endpoints), dict(self.verdicts)
        for id in own:
            key = self.worker, id
            endpoints.pop(key, None)
            verdicts.pop(key, None)
            known = view.by_key.get(key)
            if known is None:
                continue
            now = known if instances is None else _current_endpoint(known, instances.get(id))
            if now is not known:
                endpoints[key] = now
            verdict = health.get(key)
            if verdict is Health.STARTING or not _is_probed_run(known, instances, id):
                verdict = None  # STARTING is not published either
            if view.health.get(key) is not verdict:
                verdicts[key] = verdict
        return LocalOverlay(self.worker, view, instances, health, endpoints, verdicts)

    def overlaid(self) -> ClusterView:
        """The view without own endpoints that no longer run, with the drains of the running ones and with own verdicts.

        It is the same object as `view` if nothing differs.
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


def _current_endpoint(endpoint: Endpoint, instance: Instance | None) -> Endpoint | None:
    if instance is None:
        return None
    now = endpoint
    if (endpoint.drain, endpoint.health) != (instance.drain, instance.health):
        now = endpoint.with_state(instance.drain, instance.health)
    # The weight of the label is known once it is registered: a reset takes effect with that.
    if instance.asked_weight not in (None, endpoint.asked_weight):
        now = now.with_weight(effective_weight(endpoint.weight, instance.asked_weight), instance.asked_weight)
    return now


def _is_probed_run(endpoint: Endpoint, instances: Mapping[str, Instance] | None, id: str) -> bool:
    """Whether the prober's health is about the running process: it probes the run that is in the view."""
    instance = None if instances is None else instances.get(id)
    return instance is None or same_run(endpoint.run, instance.run)


def known_health(view: ClusterView, worker: str, probed: Mapping[EndpointKey, Health]) -> Mapping[EndpointKey, Health]:
    """The published health of other workers' endpoints, and this worker's probe results for its own."""
    others = {key: health for key, health in view.health.items() if key[0] != worker}
    return others | {key: health for key, health in probed.items() if key[0] == worker}
