"""Which virtual servers of a kernel are ours: those on VIPs of the pool, and published ports that we have claimed.

Other programs may use the same IPVS. What is not ours is neither reported nor touched.
"""

import ipaddress
from collections.abc import Iterable

from mesh.config import Network
from mesh.model import Address, Claims, VirtualKey


class Ownership:
    """A predicate over virtual servers that follows the claims. `claims` is replaced as a whole by the loop."""

    def __init__(self, pool: Network, worker_addresses: Iterable[Address]) -> None:
        self._pool = pool
        self._addresses = frozenset(worker_addresses)
        self.claims = Claims()

    def __call__(self, key: VirtualKey) -> bool:
        """Whether a virtual server is ours to change and to delete. Claims are for good, so a port stays ours."""
        if key.address in self._addresses:
            return (key.transport, key.port) in self.claims.ports
        return ipaddress.ip_address(key.address) in self._pool
