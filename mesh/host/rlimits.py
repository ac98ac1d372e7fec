"""The limit of open files of this process, and what may be opened within it.

A worker with many endpoints has a thousand checks under way at a time, and a proxy has two sockets for each connection.
The usual soft limit of 1024 protects programs that use select(2); this program does not.

What strangers cause to be opened (proxied connections, DNS over TCP, requests to the admin API) is bounded, so that a
reserve is left for everything else: names over UDP, probes, the store, the engine, the kernel.
"""

import resource
from dataclasses import dataclass

_ENOUGH = 1 << 16
"""The limit of open files that this process asks for at most."""
_BASE, _RESERVE = 96, 8
"""The reserve: the files of an idle worker, and the eighth part of the limit. A listening socket accepts connections
before they are counted.
"""


@dataclass(frozen=True, slots=True)
class DescriptorShares:
    """How many of each kind may be open at a time."""

    checks: int = 1024
    """Running checks, each with one socket."""
    dns_connections: int = 256
    """TCP connections of the name server at each of its addresses."""
    admin_connections: int = 128
    """Connections at each address of the admin API."""
    proxied_connections: int = 1 << 14
    """TCP connections of the user-space proxy, each with two sockets."""
    proxied_sessions: int = 1 << 13
    """UDP sessions of the user-space proxy, each with one socket."""


def share_descriptors(limit: int, dns_addresses: int = 1, full: DescriptorShares | None = None) -> DescriptorShares:
    """Return what of `full` fits into this limit of open files, with `dns_addresses` addresses of the name server.
    None: the shares of the default settings.

    Something is left of each kind even if the limit is too small for all of them.
    """
    spare = max(0, limit - _BASE - limit // _RESERVE)
    full = full or DescriptorShares()
    return DescriptorShares(
        min(full.checks, max(16, spare // 4)),
        min(full.dns_connections, max(4, spare // 8 // max(1, dns_addresses))),
        min(full.admin_connections, max(8, spare // 16)),
        min(full.proxied_connections, max(4, spare // 8)),
        min(full.proxied_sessions, max(4, spare // 8)),
    )


def raise_file_limit() -> int:
    """Raise the soft limit up to the hard one, at most to 65536; returns the limit in force now (getrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY:
        return _ENOUGH
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
