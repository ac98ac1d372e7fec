"""Which virtual servers outside of the VIP pool are ours: the published ports that we have claimed.

Other programs may balance ports of the same worker through the same IPVS; theirs are neither shown nor touched.
"""

from collections.abc import Iterable

from mesh.model.claims import Claims
from mesh.model.service import Address
from mesh.model.table import VirtualKey


class PublishedPorts:
    """A predicate over virtual servers that follows the claims and the worker's addresses."""

    def __init__(self) -> None:
        self.claims = Claims()
        """Replaced as a whole by the loop."""
        self._addresses: set[Address] = set()

    def know(self, addresses: Iterable[Address]) -> None:
        """The worker has these addresses. One that goes leaves virtual servers behind, which are ours to delete."""
        self._addresses.update(addresses)

    def __call__(self, key: VirtualKey) -> bool:
        """Whether this is a published port of ours. Claims are for good, so it stays ours when its service is gone."""
        return key.address in self._addresses and (key.transport, key.port) in self.claims.ports
