"""Computes what is free on a host: a network for VIPs, a range for published ports. Pure."""

from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_network

from mesh.host.overlap import Network

# In the order in which they are proposed: where few sites have hosts comes first.
_PRIVATE = {
    4: ("10.112.0.0/12", "10.128.0.0/9", "10.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    6: ("fd76:6970:6d00::/40", "fd00::/8"),
}
_LOOPBACK = ("127.112.0.0/12", "127.0.0.0/8")
_SMALLEST = {4: 24, 6: 120}
"""The longest prefix that is proposed: a pool with fewer addresses is of no use."""
_FIRST_PORT, _LAST_PORT = 1024, 65535
_PREFERRED_PORT = 20000


def free_network(taken: Iterable[Network], like: Network) -> Network | None:
    """Return a private network of the size of `like`, or a smaller one, that overlaps nothing in `taken`.

    None if there is none of at least 256 addresses.
    """
    spans = _merged(taken, like.version)
    bases = [ip_network(text) for text in (_LOOPBACK if like.is_loopback else _PRIVATE[like.version])]
    for prefix in range(like.prefixlen, max(like.prefixlen, _SMALLEST[like.version]) + 1):
        for base in bases:
            if base.prefixlen <= prefix and (found := _first_gap(spans, base, prefix)) is not None:
                return found
    return None


def free_port_range(blocked: Collection[int], size: int) -> range | None:
    """Return so many ports in a row of which none is blocked, from 20000 on if possible; None if there are none."""
    for first, last in ((_PREFERRED_PORT, _LAST_PORT), (_FIRST_PORT, _LAST_PORT)):
        begin = first
        for port in range(first, last + 1):
            if port in blocked:
                begin = port + 1
            elif port - begin + 1 == size:
                return range(begin, port + 1)
    return None


def port_list(ports: Iterable[int]) -> str:
    """Return ports as the kernel writes them in ip_local_reserved_ports: `30080,32000-32767`; empty for none."""
    return ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in _runs(ports))


def parse_port_list(text: str) -> frozenset[int]:
    """Return the ports of `30080,32000-32767`; empty for an empty text. Raises `ValueError` for another text."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            if not 0 <= int(first) <= int(last or first) <= _LAST_PORT:
                raise ValueError(f"{part} is no range of ports")
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _runs(ports: Iterable[int]) -> Iterator[range]:
    """Yield the ports in runs of neighbours, in order."""
    run = range(0)
    for port in sorted(set(ports)):
        if run and port == run.stop:
            run = range(run.start, port + 1)
        else:
            if run:
                yield run
            run = range(port, port + 1)
    if run:
        yield run


def _merged(networks: Iterable[Network], version: int) -> list[tuple[int, int]]:
    """Return the first and last addresses of the networks of a version, as numbers in order, without overlaps."""
    spans = sorted(
        (int(network.network_address), int(network.broadcast_address))
        for network in networks
        if network.version == version and network.prefixlen > 0
    )
    merged: list[tuple[int, int]] = []
    for first, last in spans:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _first_gap(spans: list[tuple[int, int]], base: Network, prefix: int) -> Network | None:
    """Return the first network of this prefix length in `base` that none of the spans touches; None without one."""
    size = 1 << (base.max_prefixlen - prefix)
    at, end = int(base.network_address), int(base.broadcast_address)
    for first, last in spans:
        if last < at:
            continue
        if first >= at + size:
            break
        at = -(-(last + 1) // size) * size  # the first multiple of the size after this span
    return ip_network((at, prefix)) if at + size - 1 <= end else None
