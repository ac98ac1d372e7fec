"""The data plane of a worker whose kernel has no IPVS: destination NAT by nftables, in the kernel.

    ip daddr . protocol . port  --services-->  chain of the virtual server  --numgen or jhash-->  dnat to a real server

What a connection costs does not grow with the number of virtual servers: one lookup in a map, and a number that picks a
real server. Later packets follow the connection that the kernel then knows (conntrack), so a change never moves an
established one. All of it is in one table, `vipmesh_lb`; other tables of the host are neither read nor touched.
"""

from mesh.dataplane.nftables.plane import NftablesDataPlane, remove_tables, unavailable_reason

__all__ = ["NftablesDataPlane", "remove_tables", "unavailable_reason"]
