"""vipmesh: a routing mesh for containers, with one VIP per service, IPVS or nftables below it and DNS names from
labels.
"""

__version__ = "0.1.0"
"""The version of the package, as `vipmesh --version` and the status show it."""
