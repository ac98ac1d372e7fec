"""A data plane in memory that refuses what a kernel would."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from typing_extensions import override

from mesh.dataplane import DataPlane, DataPlaneError, OperationFailure
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.operations import Operation, OperationRefusedError, apply_operations, settle_operation
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.service import Address, Forwarding, Transport
from mesh.model.table import Table, TrafficCounters, VirtualKey

_FLAGS = {Transport.TCP: "-t", Transport.UDP: "-u", Transport.SCTP: "--sctp-service"}
_METHODS = {Forwarding.MASQUERADE: "-m", Forwarding.TUNNEL: "-i", Forwarding.DIRECT: "-g"}


class FakeDataPlane(DataPlane):
    """The `DataPlane` of tests. `gone` makes it a plane that no longer answers, with that text."""

    name = "fake"
    forwards_in_kernel = True

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or Table()
        self.applied = 0
        """Operations that were carried out, ever."""
        self.asked: list[Collection[VirtualKey] | None] = []
        """What each `read` was about."""
        self.gone: str | None = None
        self.active: dict[BackendKey, int] = {}
        """What `connections` says; a place that is not there has none."""
        self.carried: dict[VirtualKey, TrafficCounters] = {}
        """What `traffic` says; a virtual server that is not there has had none."""
        self._refusals: list[tuple[Callable[[Operation], bool], str]] = []

    def fail_next(self, predicate: Callable[[Operation], bool], reason: str) -> None:
        """Refuse the next operation for which the predicate is true, once."""
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
                pass  # somebody was quicker: one by one then
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
    def listening_on(self, key: VirtualKey) -> tuple[Address, int]:
        return key.address, key.port

    @override
    async def close(self) -> None:
        """Nothing is open."""

    def dump(self) -> str:
        """What is programmed, as `ipvsadm -Sn` would print it (ipvsadm(8))."""
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
