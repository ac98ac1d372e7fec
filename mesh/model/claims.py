"""What the cluster has given away for good: VIPs, names and published ports."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.model.service import (
    Address,
    Name,
    Transport,
)


@dataclass(frozen=True, slots=True)
class Claims:
    """What the cluster has given away for good."""

    vips: Mapping[Name, Address] = field(default_factory=dict)
    """Service name -> its VIP."""
    owners: Mapping[Name, str] = field(default_factory=dict)
    """Routing name -> the owner that holds it."""
    ports: Mapping[tuple[Transport, int], tuple[Name, int]] = field(default_factory=dict)
    """Published (transport, port) -> (service name, container port)."""
    holders: Mapping[Address, Name] = field(default_factory=dict)
    """Every VIP ever given -> the service name it was given to; one that a service has left stays its own."""
