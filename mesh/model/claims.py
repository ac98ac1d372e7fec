"""Claims: the VIPs, names and published ports that the cluster has assigned for good."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.model.service import (
    Address,
    Name,
    Service,
    Transport,
)


@dataclass(frozen=True, slots=True)
class Claims:
    """VIPs, names and published ports that the cluster has assigned. An assignment is permanent."""

    vips: Mapping[Name, Address] = field(default_factory=dict)
    """Service name -> its VIP."""
    owners: Mapping[Name, str] = field(default_factory=dict)
    """Routing name -> the owner that holds it."""
    ports: Mapping[tuple[Transport, int], tuple[Name, int]] = field(default_factory=dict)
    """Published (transport, port) -> (service name, container port)."""
    holders: Mapping[Address, Name] = field(default_factory=dict)
    """Every VIP ever assigned -> the service name it was assigned to. A VIP that its service no longer uses stays
    reserved for that service.
    """
    older_names: frozenset[Name] | None = None
    """Routing names outside the allowed domains that the cluster served before its workers knew such domains; they go
    on being served. None until the first worker of this version has recorded them.
    """
    declarations: Mapping[str, Service] = field(default_factory=dict)
    """Owner -> the declaration in force of what its clients share, without a probe. It decides only among declarations
    that instances of the service have.
    """
