"""Decides whether the headers `Host` and `Origin` of a request may be those of a client of this worker. Pure.

A page of a foreign site can give its own name the address of this worker (DNS rebinding); its requests then carry that
name. So a name in `Host` must be one of this worker's. An address cannot be rebound and is always allowed.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

ALWAYS_ALLOWED = frozenset({"localhost", "vipmesh"})
"""Names that clients of the unix socket or of a forwarded port write; browsers resolve the first one by themselves."""

_MAX_LENGTH = 300
"""The most characters of a `Host` header: a DNS name has up to 253."""
_HOST = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)(?:%[A-Za-z0-9._-]+)?\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{0,5})?"
)


@dataclass(frozen=True, slots=True)
class HostRefusal:
    """Why the `Host` of a request is refused."""

    status: int
    """400 if it is no host at all, 403 if it is one that is not this worker's."""
    reason: str
    """Ends with the remedy."""


def host_refusal(header: str, names: Collection[str], *, is_local: bool = False) -> HostRefusal | None:
    """Return the refusal, or None if the header is an address or one of `names` (lower case, without a final dot).

    `is_local`: it came over the unix socket, where any name without a dot will do: clients write what they like, and
    no foreign site has such a name. The form of the header is that of RFC 9110, section 7.2.
    """
    found = _HOST.fullmatch(header) if len(header) <= _MAX_LENGTH else None
    if found is None or (found["literal"] and not _is_address(found["literal"])):
        return HostRefusal(400, "the header Host is invalid; send the name or address of this worker")
    name = found["name"]
    if is_local and name and "." not in name:
        return None
    if not name or _is_address(name) or name.lower().rstrip(".") in ALWAYS_ALLOWED.union(names):
        return None
    return HostRefusal(
        403,
        f"Host {name[:100]!r} is not a name of this worker and could belong to a foreign site; use its address, "
        "localhost over the unix socket, or add the name to [admin] hosts",
    )


def is_foreign_origin(origin: str | None, host: str) -> bool:
    """Return whether an `Origin` (None: no such header) is not that of the page of this worker.

    RFC 6454, section 7; browsers send it with every request that may change something.
    """
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:  # `urlsplit` refuses some hosts, such as `[`
        return True


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
