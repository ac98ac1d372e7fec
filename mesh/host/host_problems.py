"""Judges the facts of a host: which of them keep packets from arriving, and what to do on this host. Pure.

The control loop reports these problems while they hold, and `vipmesh doctor` prints them. The text of a problem must
stay the same while it holds, so it has no counters: a text that changes is logged again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from mesh.host.facts import HostFacts
from mesh.host.free_space import free_network, free_port_range, port_list
from mesh.host.overlap import Network
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Name, Service, Transport

_ENGINE_POOLS = (ip_network("172.16.0.0/12"), ip_network("192.168.0.0/16"))
"""Where an engine takes its networks from if nothing else is configured."""
_LISTED = 8
"""Items that one message names; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNeeds:
    """What the daemon needs of its host."""

    pool: Network
    data_plane: str
    """`ipvs`, `nftables` or `userspace`."""
    own_interface: str = "mesh0"
    publish: range = range(0)
    """The ports for `publish: auto` (`[publish] ports`)."""
    published: Mapping[tuple[Transport, int], Name] = field(default_factory=dict)
    """The published ports that services hold, with the service's name."""
    routes_to_containers: bool = False
    """Whether other workers send to the containers' own addresses (`[source.docker] endpoint_address`)."""


def host_problems(facts: HostFacts, needs: HostNeeds) -> tuple[Problem, ...]:
    """Return the problems that hold now, in a stable order; empty if packets arrive."""
    rules: tuple[Callable[[HostFacts, HostNeeds], Iterator[Problem]], ...] = (_pool, _outgoing_ports)
    return tuple(problem for rule in rules for problem in rule(facts, needs))


def occupied_networks(facts: HostFacts, pool: Network, own_interface: str = "mesh0") -> tuple[Network, ...]:
    """Return the networks of this host in which a VIP would take the traffic of another host; empty if there are none.

    A network of the engine without a route on this host is not among them: nothing is sent there by this host.
    """
    return tuple(dict.fromkeys(overlap.network for overlap in facts.overlaps(pool, own_interface)))


def withheld_vips(
    vips: Iterable[Address], occupied: Collection[Network], bound: Collection[Address]
) -> frozenset[Address]:
    """Return the VIPs that must not be bound: those in occupied networks that are not bound already.

    A VIP that is bound has its traffic already; to unbind it would only end what works.
    """
    if not occupied:
        return frozenset()
    return frozenset(vip for vip in vips if vip not in bound and _network_of(vip, occupied) is not None)


def withheld_problem(service: Service, vip: Address, occupied: Collection[Network]) -> Problem:
    """Return the problem of a service whose VIP is withheld."""
    return Problem(
        Code.VIP_WITHHELD,
        Severity.ERROR,
        f"service {service.name}",
        f"its VIP {vip} is not bound on this worker: it is in {_network_of(vip, occupied)}, a network of this host",
        "free that network or move [vip] pool, as the problem of the pool says, or set the label routing.vip",
        owner=service.owner,
    )


def _network_of(vip: Address, networks: Collection[Network]) -> Network | None:
    """Return the first of the networks that the VIP is in; None if it is in none."""
    address = ip_address(vip)
    return next((network for network in networks if address in network), None)


def _listing(items: Collection[str]) -> str:
    """Return the items joined by commas; the rest is counted if there are many."""
    shown = list(items)[:_LISTED]
    rest = len(items) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


# ------------------------------------------------------------------------------------------------------------ the pool


def _pool(facts: HostFacts, needs: HostNeeds) -> Iterator[Problem]:
    pool = needs.pool
    engine = facts.engine
    program = "podman" if engine is not None and engine.is_podman else "docker"
    named = {
        subnet: network.name
        for network in (engine.networks if engine is not None else ())
        for subnet in network.subnets
        if subnet.version == pool.version and subnet.overlaps(pool)
    }
    lines = [f"{program} network {name} {subnet}" for subnet, name in named.items()]
    # A bridge network of the engine is also an address and a route: it is named once.
    lines += [str(found) for found in facts.overlaps(pool, needs.own_interface) if found.network not in named]
    if not lines:
        return
    yield Problem(
        Code.VIP_POOL_OVERLAPS,
        Severity.ERROR,
        f"[vip] pool {pool}",
        f"overlaps {_listing(lines)} of this host; VIPs in there are not bound unless they already are",
        _move_pool(facts, needs, [f"`{program} network rm {name}`" for name in dict.fromkeys(named.values())]),
    )


def _move_pool(facts: HostFacts, needs: HostNeeds, removals: Collection[str]) -> str:
    """Return how to end an overlap: by a pool that is free here, or without the networks of the engine."""
    engine = facts.engine
    used = [
        *(route.network for route in facts.routes if route.interface != needs.own_interface),
        *(entry.address.network for entry in facts.addresses if entry.interface != needs.own_interface),
        *(subnet for network in (engine.networks if engine is not None else ()) for subnet in network.subnets),
    ]
    if needs.pool.is_loopback:
        used = [network for network in used if not network.is_loopback or network.prefixlen > needs.pool.prefixlen]
    # The engine takes the networks that it makes later from its pools.
    pools = (engine.address_pools or _ENGINE_POOLS) if engine is not None else ()
    free = free_network([*used, *pools], needs.pool) or free_network(used, needs.pool)
    ways = [f"remove it ({_listing(removals)})"] if removals else []
    if free is not None:
        ways.append(f'set [vip] pool = "{free}", which this host does not use, on every worker')
    return ", or ".join(ways) or "remove what overlaps: no private network of 256 addresses is free on this host"


# -------------------------------------------------------------------------------------------------- ports


def _outgoing_ports(facts: HostFacts, needs: HostNeeds) -> Iterator[Problem]:
    """Yield the published ports from which this host may open connections of its own.

    IPVS takes the answer to such a connection (a SYN-ACK, a datagram) for a request to the published port. The other
    data planes follow conntrack or listen themselves.
    """
    if needs.data_plane != "ipvs":
        return
    held = {port for _, port in needs.published if _is_outgoing(port, facts)}
    in_range = {port for port in needs.publish if _is_outgoing(port, facts)}
    if not held | in_range:
        return
    reserved = port_list(facts.reserved_ports | held | in_range)
    line = f"net.ipv4.ip_local_reserved_ports = {reserved}"
    remedy = f"run `sysctl -w '{line}'` and write that line to /etc/sysctl.d/60-vipmesh.conf"
    span = f"{facts.local_ports[0]}-{facts.local_ports[-1]}"
    if in_range:
        listed = f"[publish] ports {needs.publish[0]}-{needs.publish[-1]}"
        reason = f"overlap the ports of outgoing connections, {span}: such a connection of this host hangs"
        yield Problem(Code.OUTGOING_PORTS, Severity.WARNING, listed, reason, _other_range(remedy, facts, needs))
    by_service: dict[Name, set[int]] = {}
    for (_, port), name in needs.published.items():
        if port in held and port not in in_range:
            by_service.setdefault(name, set()).add(port)
    for name, ports in sorted(by_service.items()):
        reason = f"published port {port_list(ports)} is among the ports of outgoing connections, {span}"
        yield Problem(
            Code.OUTGOING_PORTS,
            Severity.WARNING,
            f"service {name}",
            f"{reason}: a connection that this host opens from there hangs",
            remedy,
        )


def _is_outgoing(port: int, facts: HostFacts) -> bool:
    return port in facts.local_ports and port not in facts.reserved_ports


def _other_range(remedy: str, facts: HostFacts, needs: HostNeeds) -> str:
    """Add a range of ports that is free here, if there is one, to the remedy."""
    blocked = {*facts.local_ports, *facts.reserved_ports, *(port for _, port in (*facts.listening, *needs.published))}
    free = free_port_range(blocked, len(needs.publish))
    return remedy if free is None else f'{remedy}, or set [publish] ports = "{free[0]}-{free[-1]}", which are free here'
