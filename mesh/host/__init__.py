"""The worker's own network: the interface that holds the VIPs, its addresses and routes, its kernel settings."""


class HostError(Exception):
    """Something of the host is not as it must be and cannot be changed from here. The text ends with the remedy."""
