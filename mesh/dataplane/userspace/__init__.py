"""The data plane of a worker whose kernel has no IPVS: a proxy in this process, for TCP and UDP.

It serves what the kernel's would, with two differences that `docs/dataplane.md` tells users: the endpoint sees the
worker's address and not the client's, and the traffic stops with the daemon.
"""

from mesh.dataplane.userspace.plane import UserspaceDataPlane

__all__ = ["UserspaceDataPlane"]
