"""The worker's own network: the interface that holds the VIPs, the host's addresses and routes, its kernel settings."""

from mesh.model.errors import MeshError


class HostError(MeshError):
    """The host's network is not as it must be and cannot be changed from here. The text ends with the remedy."""
