"""Judges the facts of a host: which of them keep packets from arriving, and what to do on this host. Pure.

The control loop reports these problems while they hold, and `vipmesh doctor` prints them. The text of a problem must
stay the same while it holds, so it has no counters: a text that changes is logged again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from mesh.host.facts import HostFacts
from mesh.host.free_space import free_network, free_port_range, port_list
from mesh.host.overlap import Network
from mesh.model.codes import Code
from mesh.model.engine_facts import EngineFacts
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Name, Service, Transport

_NEARLY_FULL, _FULL = 0.8, 0.95
"""Shares of the conntrack table at which it is reported, as a warning and as an error."""
_FILTERS_DIRECT = 28
"""The first version of Docker that drops what other hosts send to a container's own address."""
_ENGINE_POOLS = (ip_network("172.16.0.0/12"), ip_network("192.168.0.0/16"))
"""Where an engine takes its networks from if nothing else is configured."""
_STRICT = 1
"""The value of rp_filter that drops a packet from an address which is not reached by the interface it came by."""
_RENEW_SECONDS = 30 * 86400
"""Seconds before the end of a certificate from which it is reported."""
_LISTED = 4
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
    secrets_in_clear: tuple[Problem, ...] = ()
    """The secrets that the settings send over the network without TLS."""
    secret_files: Mapping[Path, Problem] = field(default_factory=dict)
    """Files with a secret, each with the problem if every user of the host may read it."""


def host_problems(facts: HostFacts, needs: HostNeeds) -> tuple[Problem, ...]:
    """Return the problems that hold now, in a stable order; empty if packets arrive."""
    rules: tuple[Callable[[HostFacts, HostNeeds], Iterator[Problem]], ...] = (
        _pool,
        _outgoing_ports,
        _several_networks,
        _conntrack_room,
        _engine_firewall,
        _engine_restart,
        _certificates,
        _secrets,
    )
    return tuple(problem for rule in rules for problem in rule(facts, needs))


def _secrets(facts: HostFacts, needs: HostNeeds) -> Iterator[Problem]:
    """Yield the secrets that others can read, on the network or on this host."""
    yield from needs.secrets_in_clear
    yield from (problem for file, problem in needs.secret_files.items() if file in facts.readable_files)


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


# ------------------------------------------------------------------------------- containers on several networks


def _several_networks(facts: HostFacts, needs: HostNeeds) -> Iterator[Problem]:
    """Yield the containers on several networks whose replies this host drops or does not see.

    The container replies by the network of its default route, or directly to a client on any of its networks,
    whichever of its addresses was asked.
    """
    if needs.data_plane == "userspace" or facts.engine is None:
        return
    for container in facts.engine.on_several_networks:
        addresses = [ip_address(text) for text in container.addresses]
        links = {_interface_of(address, facts) for address in addresses if address.version == needs.pool.version}
        bridges = sorted(link for link in links if link)
        if len(bridges) < 2:
            continue
        strict = [bridge for bridge in bridges if facts.rp_filter.get(bridge) == _STRICT]
        if strict and needs.pool.version == 4:
            reason = f"it is on {_listing(bridges)}, and rp_filter of {_listing(strict)} is 1"
            yield Problem(
                Code.REVERSE_PATH_FILTER,
                Severity.WARNING,
                f"container {container.name}",
                f"{reason}: replies that it sends by another of its networks are dropped",
                "run `sysctl -w net.ipv4.conf.all.rp_filter=2` and write that line to /etc/sysctl.d/60-vipmesh.conf",
            )
        if not facts.bridge_filtering and _is_unmasqueraded(addresses, facts.engine):
            key = f"net.bridge.bridge-nf-call-ip{'6' if needs.pool.version == 6 else ''}tables"
            yield Problem(
                Code.BRIDGE_FILTERING,
                Severity.WARNING,
                f"container {container.name}",
                f"it is on {_listing(bridges)}, and bridged packets are not tracked: clients on one of these "
                "networks get replies that do not pass this worker",
                f"run `modprobe br_netfilter && sysctl -w {key}=1`, or attach it to one network only",
            )


def _interface_of(address: IPv4Address | IPv6Address, facts: HostFacts) -> str | None:
    """Return the interface of the longest route to an address, without the default route; None without one."""
    routes = [route for route in facts.routes if route.network.prefixlen and address in route.network]
    return max(routes, key=lambda route: route.network.prefixlen).interface if routes else None


def _is_unmasqueraded(addresses: Collection[IPv4Address | IPv6Address], engine: EngineFacts) -> bool:
    """Return whether one of the addresses is on a network whose containers keep their address on other networks."""
    return any(
        not network.masquerades and any(address in subnet for address in addresses for subnet in network.subnets)
        for network in engine.networks
    )


# ------------------------------------------------------------------------------------------ connection tracking


def _conntrack_room(facts: HostFacts, needs: HostNeeds) -> Iterator[Problem]:
    room = facts.conntrack
    if room is None or needs.data_plane == "userspace" or room.count < _NEARLY_FULL * room.maximum:
        return
    full = room.count >= _FULL * room.maximum
    line = f"net.netfilter.nf_conntrack_max = {2 * room.maximum}"
    yield Problem(
        Code.CONNTRACK_FULL,
        Severity.ERROR if full else Severity.WARNING,
        "connection tracking",
        f"more than {_FULL if full else _NEARLY_FULL:.0%} of its {room.maximum} entries are in use: when all are, new "
        "connections are dropped",
        f"run `sysctl -w '{line}'` and write that line to /etc/sysctl.d/60-vipmesh.conf",
    )


# --------------------------------------------------------------------------------------------- the container engine


def _engine_firewall(facts: HostFacts, needs: HostNeeds) -> Iterator[Problem]:
    engine = facts.engine
    if engine is None or engine.is_podman or not needs.routes_to_containers:
        return
    major = engine.version.partition(".")[0]
    if not major.isdigit() or int(major) < _FILTERS_DIRECT:
        return
    yield Problem(
        Code.ENGINE_FIREWALL,
        Severity.WARNING,
        f"docker engine {engine.version}",
        "it drops what other workers send to the addresses of its containers, and [source.docker] endpoint_address is "
        "container",
        'publish the ports of the containers (`docker run -p`), and set endpoint_address = "host" or write '
        '"allow-direct-routing": true to /etc/docker/daemon.json and restart the engine',
    )


def _engine_restart(facts: HostFacts, _: HostNeeds) -> Iterator[Problem]:
    engine = facts.engine
    if engine is None or engine.is_podman or engine.in_swarm or engine.live_restore is not False:
        return
    yield Problem(
        Code.ENGINE_RESTART,
        Severity.WARNING,
        f"docker engine {engine.version}".rstrip(),
        "live-restore is off: a restart of the engine, as by its update, ends every container and so every endpoint of "
        "this worker",
        'write "live-restore": true to /etc/docker/daemon.json and run `systemctl reload docker`',
    )


# ------------------------------------------------------------------------------------------------- certificates


def _certificates(facts: HostFacts, _: HostNeeds) -> Iterator[Problem]:
    for certificate in facts.certificates:
        if not certificate.last_day or certificate.seconds_left >= _RENEW_SECONDS:
            continue  # the admin API itself reports a file that cannot be read
        ended = certificate.seconds_left < 0
        yield Problem(
            Code.CERTIFICATE_ENDS,
            Severity.ERROR if ended else Severity.WARNING,
            f"certificate {certificate.file}",
            f"it {'ended' if ended else 'ends'} on {certificate.last_day}: then no client can verify this worker",
            "make a new one with `vipmesh cluster certs` where the authority's key is, and put it in its place",
        )
