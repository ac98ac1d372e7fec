"""Who a client of the admin API is, by its certificate. Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_HOLDER = re.compile(r"vipmesh:(worker|operator)/([A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)\Z")
"""The names that a worker may have are among these; so are DNS names."""


class CertificateHolder(NamedTuple):
    """Whom a certificate of the cluster's authority names."""

    name: str
    """A worker's name, or an operator's."""
    is_worker: bool

    @property
    def uri(self) -> str:
        """How the certificate says it, as a URI in its subjectAltName (RFC 5280, section 4.2.1.6)."""
        return f"vipmesh:{'worker' if self.is_worker else 'operator'}/{self.name}"


def parse_holder(uris: Iterable[str]) -> CertificateHolder | None:
    """Return the holder that the URIs of a certificate name, or None if they name none.

    One that names a worker and somebody else counts as the worker, which may do less.
    """
    found = [match for uri in uris if (match := _HOLDER.match(uri)) is not None]
    holders = sorted(
        (CertificateHolder(match[2], match[1] == "worker") for match in found), key=lambda h: not h.is_worker
    )
    return holders[0] if holders else None
