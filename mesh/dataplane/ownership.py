"""Decides which virtual servers outside the VIP pool are ours: the published ports that this cluster has claimed.

Other programs may balance ports of the same worker through the same IPVS; theirs are neither reported nor changed.
"""

from collections.abc import Iterable

from mesh.model.claims import Claims
from mesh.model.service import Address
from mesh.model.table import VirtualKey


class PublishedPorts:
    """A predicate over virtual servers that follows the claims and the worker's addresses."""

    def __init__(self) -> None:
        self.claims = Claims()
        """The claims in force; the control loop replaces them as a whole."""
        self._addresses: set[Address] = set()
        """Every address that this worker has or had."""

    def know(self, addresses: Iterable[Address]) -> None:
        """Add addresses of this worker.

        Addresses are never removed: one that disappears leaves virtual servers behind, which are ours to delete.
        """
        self._addresses.update(addresses)

    def __call__(self, key: VirtualKey) -> bool:
        """Return whether a virtual server is a published port of ours.

        Claims are permanent, so it stays ours when its service is gone.
        """
        return key.address in self._addresses and (key.transport, key.port) in self.claims.ports
