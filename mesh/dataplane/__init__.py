"""What forwards the traffic: IPVS in the kernel, or a proxy in user space where the kernel has none.

One Protocol, several technologies, one contract suite (`tests/dataplane/contract.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh.dataplane.drain import BackendKey
from mesh.dataplane.operations import Operation
from mesh.model.errors import CodedText, MeshError
from mesh.model.service import Address
from mesh.model.table import Table, TrafficCounters, VirtualKey


@dataclass(frozen=True, slots=True)
class OperationFailure:
    """An operation that the data plane refused."""

    operation: Operation
    reason: CodedText
    """Why; it ends with the remedy."""

    @property
    def coded(self) -> CodedText:
        """The operation and the reason in one line."""
        return self.reason._replace(text=f"{self.operation}: {self.reason}")


class DataPlaneError(MeshError):
    """The data plane as a whole does not work: not permitted, not there. The text ends with the remedy."""


class DataPlane(Protocol):
    """Where tables become traffic.

    Everything observed is read from where the traffic flows, never remembered, so that what somebody else
    changed is seen. What is not ours (outside the VIP pool and the published ports) is neither reported nor
    touched.
    """

    @property
    def name(self) -> str:
        """`ipvs` or `userspace`."""
        ...

    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        """What is programmed now, ours alone; an empty `Table` if nothing is.

        With `only`, of the virtual servers just these, as far as they exist; always all VIPs.
        Raises `DataPlaneError` if it cannot be read. Never answers an empty table instead of an error.
        """
        ...

    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        """Run the operations in order; returns those that failed, in order, empty if all went well.

        One failure does not stop the others. To add what exists with the same settings, and to delete what is not
        there, counts as done: somebody else was quicker. No operations: nothing is done.
        Raises `DataPlaneError` only if the data plane as a whole is gone.
        """
        ...

    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[BackendKey, int]:
        """Established connections of each real server behind each virtual server, as far as they can be counted.

        With `only`, of these virtual servers.
        A place that is missing is one that cannot be counted. Raises `DataPlaneError`.
        """
        ...

    async def traffic(self) -> Mapping[VirtualKey, TrafficCounters]:
        """What has gone through each of our virtual servers; empty if this data plane does not count.

        IPVS is a few seconds behind. Raises `DataPlaneError`.
        """
        ...

    async def close(self) -> None:
        """Let go of sockets. A kernel's data plane keeps forwarding; one in user space ends with the process."""
        ...


class VipInterface(Protocol):
    """The worker's interface that holds the VIPs, each as a single host address."""

    async def addresses(self) -> frozenset[Address]:
        """The VIPs that are bound now; empty if the interface does not exist. Raises `OSError`."""
        ...

    async def bind(self, address: Address) -> None:
        """Add an address, making the interface if it is missing; bound already: nothing is done.

        Raises `OSError` with the kernel's reason.
        """
        ...

    async def unbind(self, address: Address) -> None:
        """Remove an address; not there: nothing is done. Raises `OSError` with the kernel's reason."""
        ...
