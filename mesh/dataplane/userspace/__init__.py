"""The user-space data plane, for a worker whose kernel has no IPVS: a TCP and UDP proxy in this process.

It serves what a data plane in the kernel would, with two differences that `docs/dataplane.md` explains to users: the
endpoint sees the worker's address and not the client's, and traffic stops with the daemon.
"""

from mesh.dataplane.userspace.plane import UserspaceDataPlane

__all__ = ["UserspaceDataPlane"]
