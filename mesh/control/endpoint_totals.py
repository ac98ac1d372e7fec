"""Sums up the traffic of endpoints over the virtual servers of their service. Pure."""

from collections.abc import Mapping

from mesh.control.service_plan import ServicePlan
from mesh.dataplane.drain import BackendKey
from mesh.model.eligibility import real_keys
from mesh.model.service import Endpoint
from mesh.model.table import RealKey, TrafficCounters, VirtualKey


def traffic_by_server(
    counted: Mapping[BackendKey, TrafficCounters],
) -> Mapping[VirtualKey, Mapping[RealKey, TrafficCounters]]:
    """Group the traffic of real servers by virtual server."""
    found: dict[VirtualKey, dict[RealKey, TrafficCounters]] = {}
    for (virtual, real), traffic in counted.items():
        found.setdefault(virtual, {})[real] = traffic
    return found


def endpoint_totals(
    part: ServicePlan, counted: Mapping[VirtualKey, Mapping[RealKey, TrafficCounters]]
) -> list[tuple[Endpoint, TrafficCounters]]:
    """Return the traffic of each endpoint of a service that a virtual server counts, published ports included."""
    servers = [counted[virtual] for virtual in part.virtual_servers if virtual in counted]
    found: list[tuple[Endpoint, TrafficCounters]] = []
    for endpoint in part.inputs.endpoints if servers else ():
        reals = real_keys(part.inputs.service, endpoint)
        each = [server[real] for server in servers for real in reals if real in server]
        if each:
            found.append((endpoint, sum(each, TrafficCounters())))
    return found
