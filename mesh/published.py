"""Which virtual servers outside of the VIP pool are ours: the published ports that we have claimed.

Other programs may balance ports of the same worker through the same IPVS; theirs are neither shown nor touched.
"""

from collections.abc import Iterable

from mesh.model import Address, Claims, VirtualKey


class PublishedPorts:
    """A predicate over virtual servers that follows the claims. `claims` is replaced as a whole by the loop."""

    def __init__(self, worker_addresses: Iterable[Address]) -> None:
        self._addresses = frozenset(worker_addresses)
        self.claims = Claims()

    def __call__(self, key: VirtualKey) -> bool:
        """Whether this is a published port of ours. Claims are for good, so it stays ours when its service is gone."""
        return key.address in self._addresses and (key.transport, key.port) in self.claims.ports
