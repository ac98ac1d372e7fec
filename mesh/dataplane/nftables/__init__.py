"""The data plane of a worker whose kernel has no IPVS: destination NAT by nftables, in the kernel.

    ip daddr . protocol . port  --services-->  chain of the virtual server  --numgen or jhash-->  dnat to a real server

The cost of a connection does not grow with the number of virtual servers: it is one look-up in a map, and one number
that selects a real server. Later packets follow the connection that the kernel then tracks (conntrack), so a change
never moves an established connection. Everything is in one table, `vipmesh_lb`; other tables of the host are neither
read nor changed.
"""

from mesh.dataplane.nftables.plane import NftablesDataPlane, remove_tables, unavailable_reason

__all__ = ["NftablesDataPlane", "remove_tables", "unavailable_reason"]
