"""What a worker knows of its own endpoints before, and without, the store.

That a container is being stopped is known here first, and it must not wait for the store to say it back: a store may
be slow, or gone. So each pass looks at the cluster's picture with the own endpoints brought up to date. Only what takes
traffic away is taken from here; what appears goes through the store, which gives it a VIP and a name. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mesh.model import ClusterView, EndpointKey, Health, Instance


def up_to_date(view: ClusterView, worker: str, instances: Iterable[Instance]) -> ClusterView:
    """The view without this worker's endpoints that run no more, and with the drains of those that run.

    `instances` are those of every source of this worker; each must have answered.
    """
    here = {instance.id: instance for instance in instances}
    endpoints = []
    for endpoint in view.endpoints:
        if endpoint.worker != worker:
            endpoints.append(endpoint)
        elif (instance := here.get(endpoint.id)) is not None:
            same = (endpoint.drain, endpoint.health) == (instance.drain, instance.health)
            endpoints.append(endpoint if same else replace(endpoint, drain=instance.drain, health=instance.health))
    return replace(view, endpoints=tuple(endpoints))


def health_of(view: ClusterView, worker: str, probed: Mapping[str, Health]) -> Mapping[EndpointKey, Health]:
    """What the other workers say of their endpoints, and this one's probes (by endpoint id) of its own."""
    others = {key: health for key, health in view.health.items() if key[0] != worker}
    return others | {(worker, id): health for id, health in probed.items()}
