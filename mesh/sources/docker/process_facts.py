"""Parses what the kernel tells of a container's process: its container, its start and its addresses. Pure.

The text is of files in /proc/PID: cgroup (cgroups(7)), stat and net (proc(5)). Anyone may read them where processes of
other users are visible, and nobody has to enter a namespace.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, ip_interface
from typing import TypeAlias

Interface: TypeAlias = IPv4Interface | IPv6Interface
"""An address with the prefix length of its network."""

_CONTAINER = re.compile(r"(?:[a-z]{1,16}-)?([0-9a-f]{64})(?:\.scope)?", re.ASCII)
"""A part of the path of a cgroup: Docker and Podman make ID, docker-ID.scope or libpod-ID.scope."""
_ENDED = frozenset({"Z", "X", "x"})  # proc(5), state
_MAX_INTERFACES = 64
_ROUTE_UP, _ROUTE_GATEWAY = 1, 2  # linux/route.h
_ESTABLISHED, _LISTEN = "01", "0A"  # net/tcp_states.h
_SCOPE_GLOBAL = "00"  # net/ipv6.h, IPV6_ADDR_ANY


@dataclass(frozen=True, slots=True)
class ContainerProcess:
    """A process of a container. Another one that gets the same PID began later."""

    pid: int
    began: int
    """Clock ticks since the boot of the host."""
    parent: int = field(default=0, compare=False)
    """The PID of its parent."""


@dataclass(frozen=True, slots=True)
class ObservedContainer:
    """The first process of a container, and the addresses of its network."""

    process: ContainerProcess
    interfaces: frozenset[Interface] = field(default_factory=frozenset)
    """Empty if the process is in the network of the host."""


def count_accepted(tables: Iterable[str]) -> int:
    """Return how many connections to ports that are listened on are established, from texts of /proc/PID/net/tcp and
    tcp6.
    """
    listening, established = set(), []
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split(maxsplit=4)
            if len(fields) < 4:
                continue
            port = fields[1].rpartition(":")[2]
            if fields[3] == _LISTEN:
                listening.add(port)
            elif fields[3] == _ESTABLISHED:
                established.append(port)
    return sum(port in listening for port in established)


def parse_cgroup(text: str) -> str | None:
    """Return the ID of the container that the text of /proc/PID/cgroup names; None if it names none, or several.

    The first ID of a path counts: a container may be able to make cgroups with any name, but only below its own.
    """
    found = set()
    for line in text.splitlines():
        path = line.split(":", 2)[2:]
        matches = (_CONTAINER.fullmatch(part) for part in "".join(path).split("/"))
        found.add(next((match[1] for match in matches if match), None))
    ids = found - {None}
    return ids.pop() if len(ids) == 1 else None


def parse_stat(pid: int, text: str) -> ContainerProcess | None:
    """Return a running process from the text of /proc/PID/stat; None if it has ended or the text is unreadable.

    The name of the process comes first and may contain anything. A process that has ended stays for its parent.
    """
    fields = text.rpartition(")")[2].split()
    try:
        state, parent, began = fields[0], int(fields[1]), int(fields[19])
    except (IndexError, ValueError):
        return None
    return None if state in _ENDED else ContainerProcess(pid, began, parent)


def parse_interfaces(fib_trie: str, routes: str, if_inet6: str) -> frozenset[Interface]:
    """Return the addresses of a network namespace with the networks that they are in, without those of loopback.

    The texts are those of fib_trie, route and if_inet6 in /proc/PID/net. Raises `ValueError` if they are unreadable.
    """
    found: set[Interface] = set()
    networks = sorted(_connected(routes), key=lambda network: -network.prefixlen)
    for address in _local(fib_trie):
        network = next((network for network in networks if address in network), None)
        if network is not None and not address.is_loopback:
            found.add(IPv4Interface((address, network.prefixlen)))
    for line in if_inet6.splitlines():
        text, _, length, scope, *_ = line.split()
        if scope == _SCOPE_GLOBAL:
            found.add(IPv6Interface((IPv6Address(int(text, 16)), int(length, 16))))
    if len(found) > _MAX_INTERFACES:
        raise ValueError(f"over {_MAX_INTERFACES} addresses")
    return frozenset(found)


def moved_address(before: str, interfaces: frozenset[Interface]) -> str | None:
    """Return the present address of a container on the network on which it had `before`; None if it is not certain."""
    old = ip_interface(before).ip
    if any(interface.ip == old for interface in interfaces):
        return before
    there = [interface for interface in interfaces if old in interface.network]
    return str(there[0].ip) if len(there) == 1 else None


def _local(fib_trie: str) -> Iterator[IPv4Address]:
    """Yield the addresses that are followed by a line such as `/32 host LOCAL`."""
    address = ""
    for line in fib_trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[-1]
        elif words == ["/32", "host", "LOCAL"]:
            yield IPv4Address(address)


def _connected(routes: str) -> Iterator[IPv4Network]:
    """Yield the networks that are reached without a gateway."""
    for line in routes.splitlines()[1:]:
        _, destination, _, flags, _, _, _, mask, *_ = line.split()
        if int(flags, 16) & (_ROUTE_UP | _ROUTE_GATEWAY) == _ROUTE_UP and int(mask, 16):
            yield IPv4Network((_address(destination), str(_address(mask))))


def _address(text: str) -> IPv4Address:
    """Convert eight hexadecimal digits: the number in memory is in network order, and printed in the host's."""
    return IPv4Address(int(text, 16).to_bytes(4, sys.byteorder))
