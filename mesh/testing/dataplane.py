"""A data plane in memory that refuses the same operations as a kernel."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from typing_extensions import override

from mesh.dataplane import DataPlane, DataPlaneError, OperationFailure
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.operations import Operation, OperationRefusedError, apply_operations, settle_operation
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.service import Address, Forwarding, Transport
from mesh.model.table import FailedConnections, Table, TrafficCounters, VirtualKey

_FLAGS = {Transport.TCP: "-t", Transport.UDP: "-u", Transport.SCTP: "--sctp-service"}
_METHODS = {Forwarding.MASQUERADE: "-m", Forwarding.TUNNEL: "-i", Forwarding.DIRECT: "-g"}


class FakeDataPlane(DataPlane):
    """Implements `DataPlane` for tests."""

    name = "fake"
    forwards_in_kernel = True

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or Table()
        """The programmed table; a test may replace it, as a change from outside does."""
        self.applied = 0
        """The number of operations that were carried out so far."""
        self.asked: list[Collection[VirtualKey] | None] = []
        """The argument `only` of each `read` so far, in order."""
        self.gone: str | None = None
        """A message: every call raises `DataPlaneError` with it. None: the data plane answers."""
        self.active: dict[BackendKey, int] = {}
        """The result of `connections`; a missing place has no connections."""
        self.carried: dict[VirtualKey, TrafficCounters] = {}
        """The result of `traffic`; a missing virtual server has had no traffic."""
        self.carried_by: dict[BackendKey, TrafficCounters] = {}
        """The result of `endpoint_traffic`; a missing real server has had no traffic."""
        self.failed: dict[BackendKey, FailedConnections] = {}
        """The result of `failed_connections`; a missing real server has had none."""
        self._refusals: list[tuple[Callable[[Operation], bool], str]] = []

    def fail_next(self, predicate: Callable[[Operation], bool], reason: str) -> None:
        """Refuse the next operation for which the predicate is true, once, with this reason."""
        self._refusals.append((predicate, reason))

    @override
    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        self.asked.append(only)
        self._answer()
        return self.table if only is None else self.table.part(only)

    @override
    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        self._answer()
        if not self._refusals:
            try:
                after = apply_operations(self.table, operations)
            except OperationRefusedError:
                # The table was changed from outside: run the operations one by one, so that only some of them fail.
                pass
            else:
                self.applied += len(operations)
                self.table = after
                return ()
        reasons = ((operation, self._run(operation)) for operation in operations)
        return [
            OperationFailure(operation, CodedText(text, Code.OPERATION_REFUSED)) for operation, text in reasons if text
        ]

    @override
    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[BackendKey, int]:
        self._answer()
        servers = (self.table if only is None else self.table.part(only)).virtual_servers
        places = [(key, real) for key, server in servers.items() for real in server.real_servers]
        return {place: self.active.get(place, 0) for place in places}

    @override
    async def traffic(self) -> Mapping[VirtualKey, TrafficCounters]:
        self._answer()
        return {key: self.carried.get(key, TrafficCounters()) for key in self.table.virtual_servers}

    @override
    async def endpoint_traffic(self) -> Mapping[BackendKey, TrafficCounters]:
        self._answer()
        servers = self.table.virtual_servers.items()
        places = [(key, real) for key, server in servers for real in server.real_servers]
        # A real server takes its counts with it.
        self.carried_by = {place: self.carried_by[place] for place in places if place in self.carried_by}
        return {place: self.carried_by.get(place, TrafficCounters()) for place in places}

    @override
    async def failed_connections(self) -> Mapping[BackendKey, FailedConnections]:
        self._answer()
        servers = self.table.virtual_servers.items()
        places = [(key, real) for key, server in servers for real in server.real_servers]
        return {place: self.failed.get(place, FailedConnections()) for place in places}

    @override
    def listening_on(self, key: VirtualKey) -> tuple[Address, int]:
        return key.address, key.port

    @override
    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def dump(self) -> str:
        """Return what is programmed, in the format of `ipvsadm -Sn` (ipvsadm(8))."""
        return "".join(f"{line}\n" for line in self._lines())

    def _answer(self) -> None:
        if self.gone is not None:
            raise DataPlaneError(Code.NETLINK_FAILED, self.gone)

    def _run(self, operation: Operation) -> str | None:
        for refusal in self._refusals:
            if refusal[0](operation):
                self._refusals.remove(refusal)
                return refusal[1]
        try:
            after = settle_operation(self.table, operation)
        except OperationRefusedError:
            return "there is no such virtual or real server; add it first"
        self.applied += after != self.table
        self.table = after
        return None

    def _lines(self) -> Iterator[str]:
        for key, server in sorted(self.table.virtual_servers.items()):
            where = f"{_FLAGS[key.transport]} {str(key).partition('//')[2]}"
            sticky = f" -p {server.persistence}" if server.persistence else ""
            hashing = ",".join(f"{server.scheduler}-{flag}" for flag in sorted(server.flags))
            yield f"-A {where} -s {server.scheduler}{sticky}" + (f" -b {hashing}" if hashing else "")
            for real, settings in sorted(server.real_servers.items(), key=lambda item: item[0]):
                upper, lower = settings.upper_threshold, settings.lower_threshold
                limits = f" -x {upper} -y {lower}" if upper or lower else ""
                yield f"-a {where} -r {real} {_METHODS[settings.forwarding]} -w {settings.weight}{limits}"
