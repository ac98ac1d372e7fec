"""Claims: the VIPs, names and published ports that the cluster has assigned."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.model.service import (
    Address,
    Name,
    Service,
    Transport,
)


@dataclass(frozen=True, slots=True)
class ClaimQuotas:
    """How much one container, and all containers of one owner together, may claim."""

    container_names: int = 32
    """Routing names."""
    container_ports: int = 16
    """Published ports."""
    owner_names: int = 256
    owner_ports: int = 64


@dataclass(frozen=True, slots=True)
class ClaimPace:
    """How many claims one worker makes in a time, for all of its services together."""

    at_once: int = 1000
    """New routing names, published ports and changes of VIPs."""
    per_minute: int = 60
    """So many more each minute, once that many were made at once."""


@dataclass(frozen=True, slots=True)
class ClaimLimits:
    """How long claims stay with holders that do not declare them, and how many one holder and one worker may make."""

    grace: float = 600.0
    """Seconds that a routing name stays with its owner in any case."""
    keep: float = 30 * 86_400.0
    """Seconds that a routing name stays with its owner towards other projects, and a published port with its service;
    at least `grace`.
    """
    quotas: ClaimQuotas = field(default_factory=ClaimQuotas)
    pace: ClaimPace = field(default_factory=ClaimPace)


@dataclass(frozen=True, slots=True)
class LapsedClaims:
    """Claims that their holders no longer declare, and for how long: which of them other services may take."""

    released: frozenset[Name] = frozenset()
    """Routing names that their owners have not declared for `[claims] grace`."""
    names: frozenset[Name] = frozenset()
    """Routing names that their owners have not declared for `[claims] keep`."""
    ports: frozenset[tuple[Transport, int]] = frozenset()
    """Published ports that no service has declared for `[claims] keep`."""
    idle: tuple[Name, ...] = ()
    """The `released` names, the one that is unused for the longest time first."""


@dataclass(frozen=True, slots=True)
class Claims:
    """VIPs, names and published ports that the cluster has assigned. An assignment lasts while its holder declares it,
    and for a long time after; a VIP stays its name's for good.
    """

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
    lapsed: LapsedClaims | None = None
    """The claims that other services may take; None where the time is not measured: then a name may be taken as soon as
    its holder does not declare it, and a published port never.
    """
    declarations: Mapping[str, Service] = field(default_factory=dict)
    """Owner -> the declaration in force of what its clients share, without a probe. It decides only among declarations
    that instances of the service have.
    """
