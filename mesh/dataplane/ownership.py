"""Decides which virtual servers outside the VIP pool are ours: the published ports that this cluster has claimed.

Other programs may balance ports of the same worker through the same IPVS; theirs are neither reported nor changed.
"""

from collections.abc import Callable, Collection

from mesh.model.claims import Claims
from mesh.model.service import Address
from mesh.model.table import VirtualKey


class PublishedPorts:
    """A predicate over virtual servers that follows the claims and the worker's addresses."""

    def __init__(self, claims: Callable[[], Claims], addresses: Callable[[], Collection[Address]]) -> None:
        """`claims` returns those in force now; `addresses` every address that this worker has or had.

        An address that disappears leaves virtual servers behind, which are ours to delete.
        """
        self._claims = claims
        self._addresses = addresses

    def __call__(self, key: VirtualKey) -> bool:
        """Return whether a virtual server is a published port of ours.

        Claims are permanent, so it stays ours when its service is gone.
        """
        return key.address in self._addresses() and (key.transport, key.port) in self._claims().ports
