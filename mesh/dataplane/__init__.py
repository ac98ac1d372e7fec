"""The data planes that forward traffic: IPVS or nftables in the kernel, or a proxy in user space.

All of them implement one Protocol and pass one contract suite (`tests/dataplane/contract.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh.dataplane.drain import BackendKey
from mesh.dataplane.operations import Operation
from mesh.model.errors import CodedText, MeshError
from mesh.model.service import Address
from mesh.model.table import FailedConnections, Table, TrafficCounters, VirtualKey


@dataclass(frozen=True, slots=True)
class OperationFailure:
    """An operation that the data plane refused, and the reason, which ends with the remedy."""

    operation: Operation
    """The refused operation."""
    reason: CodedText
    """The reason, which ends with the remedy."""

    @property
    def coded(self) -> CodedText:
        """The operation and the reason in one line."""
        return self.reason._replace(text=f"{self.operation}: {self.reason}")


class DataPlaneError(MeshError):
    """The data plane as a whole does not work: it is not permitted or not available. The text ends with the remedy."""


class DataPlane(Protocol):
    """Programs tables of virtual servers, and reads them back.

    The state is always read from where the traffic flows and never remembered, so that changes from outside vipmesh are
    seen. What is not ours (outside the VIP pool and the published ports) is neither reported nor changed.
    """

    @property
    def name(self) -> str:
        """The name of the data plane: `ipvs`, `nftables` or `userspace`."""
        ...

    @property
    def forwards_in_kernel(self) -> bool:
        """Whether the kernel forwards: it needs settings of the host, goes on without this process, and would take a
        published port from a program that listens on it. Otherwise this process forwards."""
        ...

    def listening_on(self, key: VirtualKey) -> tuple[Address, int]:
        """Where a virtual server is really reached: its own address and port unless a port offset is set."""
        ...

    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        """Return what is programmed now, ours alone; an empty `Table` if nothing is.

        `only` restricts the virtual servers to those of its keys that exist; None stands for all. The VIPs are always
        complete. Raises `DataPlaneError` if the state cannot be read, and never returns an empty table instead.
        """
        ...

    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        """Run the operations in order; returns the failed ones in order, empty if all succeeded.

        A failure does not stop the operations after it. Adding what exists with the same settings, and deleting what
        does not exist, counts as success: it was done from outside. Without operations, nothing is done. Raises
        `DataPlaneError` only if the data plane as a whole is gone.
        """
        ...

    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[BackendKey, int]:
        """Return the number of established connections of each real server behind each virtual server.

        `only` restricts the virtual servers; None stands for all. A missing place means that its connections cannot be
        counted. Raises `DataPlaneError`.
        """
        ...

    async def traffic(self) -> Mapping[VirtualKey, TrafficCounters]:
        """Return the traffic of each of our virtual servers; empty if this data plane does not count it.

        The counts of IPVS are a few seconds old. Raises `DataPlaneError`.
        """
        ...

    async def endpoint_traffic(self) -> Mapping[BackendKey, TrafficCounters]:
        """Return the traffic to each real server behind each virtual server; empty if this data plane does not count.

        No change of other real servers, weights or settings lowers a count. A real server that is deleted takes its
        counts with it: it begins at 0 when it is added again, or goes on where it was if that is soon. Those of its
        virtual server stay. The counts of IPVS are a few seconds old. Raises `DataPlaneError`.
        """
        ...

    async def failed_connections(self) -> Mapping[BackendKey, FailedConnections]:
        """Return the failed connections to each real server behind each virtual server, as `endpoint_traffic` does.

        What it counts are all of them: one that is not counted there as opened was refused or not answered. Empty if
        this data plane does not count them.
        """
        return {}

    async def close(self) -> None:
        """Close sockets. A data plane in the kernel keeps forwarding; one in user space ends with the process."""
        ...


class VipInterface(Protocol):
    """The worker's interface that holds the VIPs, each as a single host address."""

    async def addresses(self) -> frozenset[Address]:
        """Return the VIPs that are bound now; empty if the interface does not exist. Raises `OSError`."""
        ...

    async def bind(self, address: Address) -> None:
        """Add an address, and make the interface if it is missing; does nothing if the address is bound already.

        Raises `OSError` with the kernel's reason.
        """
        ...

    async def unbind(self, address: Address) -> None:
        """Remove an address; does nothing if it is not bound. Raises `OSError` with the kernel's reason."""
        ...
