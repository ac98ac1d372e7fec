"""The facts that a container engine tells about itself: its version, how it filters, which networks it has."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from mesh.model.service import Address


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    """A network of a container engine. It may have no route on this host, as with the driver macvlan."""

    name: str
    subnets: tuple[IPv4Network | IPv6Network, ...] = ()
    masquerades: bool = True
    """Whether the engine rewrites the source of what its containers send out of this network."""


@dataclass(frozen=True, slots=True)
class AttachedContainer:
    """A container with labels of the mesh that is attached to several networks."""

    name: str
    addresses: tuple[Address, ...]
    """Its address on each of its networks."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The facts of one container engine."""

    version: str = ""
    """`28.5.2`; empty if it is unknown."""
    api_version: str = ""
    """The newest API version that it speaks: `1.51`; empty if it is unknown."""
    is_podman: bool = False
    """Whether it is Podman: containers do not end with its service, so it has no live-restore."""
    firewall_backend: str = ""
    """`iptables`, `iptables+firewalld`, `nftables`; empty if it does not tell, as before Docker 29."""
    live_restore: bool | None = None
    """Whether containers outlive a restart of the engine; None if it does not tell."""
    in_swarm: bool = False
    """Whether it is in swarm mode, which excludes live-restore."""
    data_directory: str = ""
    """Where it keeps its data on its host, such as `/var/lib/docker`; empty if it does not tell."""
    address_pools: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where it takes the subnets of new networks from; empty if it does not tell."""
    networks: tuple[EngineNetwork, ...] = ()
    """Its networks, sorted by name."""
    on_several_networks: tuple[AttachedContainer, ...] = ()
    """Containers with labels of the mesh on several networks, sorted by name."""
