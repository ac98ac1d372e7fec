"""The data plane of a worker whose kernel has nftables and no IPVS: destination NAT by a verdict map.

One map leads from (address, protocol, port) to a small chain per virtual server, so that a packet costs the same among
one service and among thousands; conntrack keeps established connections where they are.
"""

from mesh.dataplane.nftables.plane import NftablesDataPlane

__all__ = ["NftablesDataPlane"]
