"""What a worker says of itself, for Prometheus: counts with few labels, whatever containers are called.

Names of services, containers and reasons are not labels: there may be thousands of them, and hostile ones. `vipmesh
status` has them.
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mesh.status import EndpointStatus, WorkerStatus

STATES = ("serving", "starting", "unhealthy", "draining", "waiting")
"""`waiting`: nothing speaks against it, and yet no connection goes to it: its service was refused its VIP."""


def render(status: WorkerStatus) -> bytes:
    """Prometheus' text format, version 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/."""
    return generate_latest(_Once(status))


class _Once(CollectorRegistry):
    def __init__(self, status: WorkerStatus) -> None:
        super().__init__()
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        info = GaugeMetricFamily("vipmesh_info", "The daemon; always 1", labels=["version", "worker", "data_plane"])
        info.add_metric([status.version, status.worker, status.data_plane], 1)
        yield info
        yield GaugeMetricFamily("vipmesh_services", "Services of all workers", value=len(status.services))
        endpoints = GaugeMetricFamily("vipmesh_endpoints", "Endpoints of all workers by state", labels=["state"])
        states = Counter(_state(endpoint) for service in status.services for endpoint in service.endpoints)
        for state in STATES:
            endpoints.add_metric([state], states[state])
        yield endpoints
        problems = "Labels, containers and claims that are refused or ignored now"
        yield GaugeMetricFamily("vipmesh_problems", problems, value=len(status.problems))
        yield GaugeMetricFamily("vipmesh_failures", "What the data plane would not do", value=len(status.failures))
        frozen = "Sources, stores and data planes that do not answer, so that their last state stays in force"
        yield GaugeMetricFamily("vipmesh_frozen", frozen, value=len(status.frozen))
        yield CounterMetricFamily(
            "vipmesh_repairs", "What somebody else had changed and was mended", value=status.repairs
        )


def _state(endpoint: EndpointStatus) -> str:
    if endpoint.serving:
        return "serving"
    if endpoint.drain is not None:
        return "draining"
    return endpoint.health if endpoint.health in STATES else "waiting"
