"""Makes the part that tells the usage of scaled containers; it decides nothing."""

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from mesh.config.labels.reader import PROBE_LABELS, label_key
from mesh.config.settings import Settings
from mesh.model.service import EndpointKey, Health, Instance
from mesh.platform.autoscaling.cgroup_reader import CgroupReader
from mesh.platform.autoscaling.usage_reporter import (
    ContainerProcessId,
    OpenUsageStore,
    ScaledInstance,
    UsageReporter,
    has_scaling_labels,
)
from mesh.platform.autoscaling.usage_sampler import UsageSampler
from mesh.sources.docker.client import CLIENT_ERRORS
from mesh.sources.docker.networks import read_process
from mesh.util.conditions import Conditions

log = logging.getLogger("vipmesh")


def usage_reporter(
    settings: Settings,
    instances: Callable[[], Mapping[str, Instance]],
    probed: Callable[[], Mapping[EndpointKey, Health]],
    conditions: Conditions,
    open_store: OpenUsageStore,
) -> UsageReporter:
    """Return the part that tells the usage of this worker's containers. Raises ValueError without an engine.

    `instances` returns those of this worker by ID, and `probed` the health of endpoints by this worker's probes.
    """
    engine = settings.source_docker_socket
    if engine is None:
        raise ValueError("there is no engine whose containers could be measured")
    return UsageReporter(
        settings.node_name,
        partial(_scaled, settings.node_name, instances, probed),
        find_process=partial(_find_process, engine),
        make_sampler=_make_sampler,
        open_store=open_store,
        conditions=conditions,
    )


def _scaled(
    worker: str,
    instances: Callable[[], Mapping[str, Instance]],
    probed: Callable[[], Mapping[EndpointKey, Health]],
) -> Iterator[ScaledInstance]:
    found = [instance for instance in instances().values() if has_scaling_labels(instance)]
    health = probed() if found else {}
    for instance in found:
        is_probed = any(label_key(instance.labels, label) is not None for label in PROBE_LABELS)
        yield ScaledInstance(instance, is_probed, health.get((worker, instance.id)) is Health.HEALTHY)


async def _find_process(engine: str, container: str) -> ContainerProcessId | None:
    try:
        found = await read_process(engine, container)
    except CLIENT_ERRORS as error:
        log.debug("the process of container %s is not told: %s", container, error)  # the source reports it
        return None
    return None if found is None else ContainerProcessId(*found)


def _make_sampler() -> UsageSampler:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UsageSampler(CgroupReader(), uuid.uuid4().hex, max(0, memory))
