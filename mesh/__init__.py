"""vipmesh: one VIP per service, IPVS underneath, names from labels."""

__version__ = "0.1.0"
