"""The traffic counters of IPVS, from linux/ip_vs.h.

The kernel updates them every two seconds, unless /proc/sys/net/ipv4/vs/run_estimation is 0.
"""

import struct
from enum import IntEnum

from mesh.dataplane.ipvs.messages import DESTINATION, SERVICE, parse_destination, parse_service
from mesh.dataplane.netlink import U32, NetlinkAttributes
from mesh.model.table import RealKey, TrafficCounters, VirtualKey

_U64 = struct.Struct("=Q")
_STATS, _STATS64 = 10, 12  # IPVS_SVC_ATTR_* and IPVS_DEST_ATTR_* alike; the second since Linux 4.1


class _IpvsStats(IntEnum):
    """Kinds of the counters: IPVS_STATS_ATTR_*."""

    CONNS, _INPKTS, _OUTPKTS, INBYTES, OUTBYTES = range(1, 6)


def parse_traffic(body: bytes) -> tuple[VirtualKey, TrafficCounters] | None:
    """Parse one reply to `get_services` into the traffic of a virtual server; None as in `parse_service`."""
    service = parse_service(body)
    if service is None:
        return None
    return service.key, _counters(NetlinkAttributes(body).nested(SERVICE))


def parse_endpoint_traffic(body: bytes) -> tuple[RealKey, TrafficCounters]:
    """Parse one reply to `get_destinations` into the traffic of a real server. Raises `MalformedNetlinkError`."""
    return parse_destination(body).key, _counters(NetlinkAttributes(body).nested(DESTINATION))


def _counters(of: NetlinkAttributes) -> TrafficCounters:
    wide = of.has(_STATS64)
    stats = of.nested(_STATS64 if wide else _STATS)
    connections = stats.number(_U64 if wide else U32, _IpvsStats.CONNS)
    return TrafficCounters(connections, stats.number(_U64, _IpvsStats.INBYTES), stats.number(_U64, _IpvsStats.OUTBYTES))
