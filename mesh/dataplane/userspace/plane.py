"""Turns tables into listening sockets of this process.

`read` returns what really listens: a virtual server whose port could not be opened is missing, so that the next pass
tries again. A virtual server may be added before its VIP is bound; it listens from when the VIP is bound.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from typing_extensions import override

from mesh.dataplane import DataPlane, DataPlaneError, OperationFailure, VipInterface
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.operations import (
    AddRealServer,
    AddVirtualServer,
    BindVip,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
    Operation,
    UnbindVip,
)
from mesh.dataplane.userspace.scheduler import RealServerScheduler
from mesh.dataplane.userspace.tcp_proxy import IDLE_TIMEOUT as TCP_IDLE
from mesh.dataplane.userspace.tcp_proxy import MAX_CONNECTIONS, RealServerMeter, TcpListener
from mesh.dataplane.userspace.udp_proxy import IDLE_TIMEOUT as UDP_IDLE
from mesh.dataplane.userspace.udp_proxy import MAX_SESSIONS, UdpListener
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.model.service import Address, Forwarding, Transport
from mesh.model.table import FailedConnections, RealKey, RealServer, Table, TrafficCounters, VirtualKey, VirtualServer
from mesh.util.bulkhead import Bulkhead, describe_error
from mesh.util.connection_shares import ConnectionShares

bulkhead = Bulkhead(DaemonPart.DATA_PLANE)

_PRIVILEGED = 1024
_TURN = 100
"""Operations after which other tasks have their turn."""
Barred: TypeAlias = Callable[[Address, Collection[RealKey]], Collection[RealKey]]
"""Which of these real servers a client may not reach."""


@dataclass(frozen=True, slots=True)
class _ProxyShares:
    """What all virtual servers share."""

    connections: ConnectionShares
    """TCP connections."""
    sessions: ConnectionShares
    """UDP sessions."""
    tcp_idle: float
    """Seconds without data after which a connection is reset."""
    udp_idle: float
    """Seconds without a datagram after which a session ends."""


class _UserspaceServer:
    """A virtual server: its listener, its scheduler and its counters."""

    def __init__(
        self,
        key: VirtualKey,
        operation: AddVirtualServer,
        on_refused: Callable[[Address, int], None],
        barred: Barred,
        shares: _ProxyShares,
    ) -> None:
        self.key = key
        self._on_refused = on_refused
        self._barred = barred
        self.balance = RealServerScheduler(operation.scheduler, operation.persistence, flags=operation.flags)
        self.listening = False
        self.connections = 0
        self.meters: dict[RealKey, RealServerMeter] = {}
        """What each present real server has carried."""
        self.listener: TcpListener | UdpListener = (
            TcpListener(self, shares.connections, shares.tcp_idle)
            if key.transport is Transport.TCP
            else UdpListener(self, shares.udp_idle, shares=shares.sessions)
        )

    def pick(self, client: Address, without: set[RealKey]) -> RealKey | None:
        return self.balance.pick(
            client,
            asyncio.get_running_loop().time(),
            without.union(self._barred(client, self.balance.real_servers.keys())),
        )

    def refused(self, real: RealKey, *, answered: bool = True) -> None:
        if (meter := self.meters.get(real)) is not None:
            meter.refused += answered
            meter.unanswered += not answered
        self._on_refused(real.address, real.port)

    def opened(self, real: RealKey) -> RealServerMeter:
        self.balance.active[real] += 1
        self.connections += 1
        # A real server may have been removed while it accepted: then nobody reads what counts its bytes.
        meter = self.meters.get(real) or RealServerMeter()
        meter.connections += 1
        return meter

    def closed(self, real: RealKey) -> None:
        self.balance.active[real] -= 1

    def put(self, real: RealKey, settings: RealServer | None) -> None:
        """Set the settings of a real server; None removes it."""
        others = {key: value for key, value in self.balance.real_servers.items() if key != real}
        self.balance.real_servers = others if settings is None else {**others, real: settings}
        if settings is None:
            self.meters.pop(real, None)
        else:
            self.meters.setdefault(real, RealServerMeter())
        # UDP has no end of a connection to wait for.
        if settings is None and isinstance(self.listener, UdpListener):
            self.listener.end_sessions_of(real)

    def carried(self) -> TrafficCounters:
        """Return the traffic since it was added."""
        return TrafficCounters(self.connections, self.listener.inward.octets, self.listener.outward.octets)

    def as_read(self) -> VirtualServer:
        """Return its present settings as a value."""
        balance = self.balance
        return VirtualServer(balance.scheduler, balance.persistence, dict(balance.real_servers), balance.flags)


class UserspaceDataPlane(DataPlane):
    """Implements `DataPlane` in this process.

    VIPs on 127.0.0.0/8 need no privilege; ports below 1024 need one.
    """

    name = "userspace"
    forwards_in_kernel = False

    def __init__(
        self,
        interface: VipInterface,
        low_port_offset: int = 0,
        on_refused: Callable[[Address, int], None] = lambda *_: None,
        barred: Barred = lambda *_: (),
        *,
        connections: int = MAX_CONNECTIONS,
        sessions: int = 2 * MAX_SESSIONS,
        idle: tuple[float, float] = (TCP_IDLE, UDP_IDLE),
    ) -> None:
        """`low_port_offset` is added to listening ports below 1024; 0 leaves them as they are.

        `on_refused` is called with address and port for each connection that a real server did not accept. `barred`
        returns the real servers that a client may not reach, since a network of this host is isolated.
        `connections` and `sessions` are the most TCP connections and UDP sessions of all virtual servers, `idle` the
        seconds after which one that carries nothing is ended.
        """
        self._on_refused = on_refused
        self._barred = barred
        self._shares = _ProxyShares(ConnectionShares(connections), ConnectionShares(sessions), *idle)
        self._interface = interface
        self._offset = low_port_offset
        self._servers: dict[VirtualKey, _UserspaceServer] = {}
        self._at: dict[Address, dict[VirtualKey, _UserspaceServer]] = {}
        """The same by address: binding one VIP of thousands must not look at all of them."""

    @property
    def limits(self) -> tuple[int, int, float, float]:
        """The most TCP connections and UDP sessions, and the seconds that either may be idle."""
        shares = self._shares
        return shares.connections.total, shares.sessions.total, shares.tcp_idle, shares.udp_idle

    @override
    def listening_on(self, key: VirtualKey) -> tuple[Address, int]:
        """Return the address and the port at which a virtual server is really reached."""
        return key.address, key.port + (self._offset if key.port < _PRIVILEGED else 0)

    @override
    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        try:
            bound = await self._interface.addresses()
        except OSError as error:
            raise DataPlaneError(
                Code.VIP_INTERFACE, f"the VIP interface cannot be read ({error}); see `ip address`"
            ) from error
        shown = self._servers if only is None else only
        return Table({key: self._servers[key].as_read() for key in shown if key in self._servers}, bound)

    @override
    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        failures = []
        for number, operation in enumerate(operations, 1):
            if not number % _TURN:
                await asyncio.sleep(0)  # most operations wait for nothing, and thousands of them are no one turn
            try:
                reason = await self._run(operation)
            except Exception as error:  # noqa: BLE001 -- one operation fails, and the others are done
                bulkhead.caught(str(operation), error)
                reason = CodedText(f"internal error: {describe_error(error)[:200]}; see the log", Code.INTERNAL_ERROR)
            if reason is not None:
                failures.append(OperationFailure(operation, reason))
        return failures

    @override
    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[BackendKey, int]:
        """Return the number of open connections of each real server; 0 for UDP.

        UDP sessions end with their real server and need no time to drain.
        """
        return {
            (key, real): server.balance.active[real] if key.transport is Transport.TCP else 0
            for key, server in self._servers.items()
            if only is None or key in only
            for real in server.balance.real_servers
        }

    @override
    async def traffic(self) -> Mapping[VirtualKey, TrafficCounters]:
        """Return the traffic of each virtual server; a UDP session counts as a connection."""
        return {key: server.carried() for key, server in self._servers.items()}

    @override
    async def endpoint_traffic(self) -> Mapping[BackendKey, TrafficCounters]:
        """Return the traffic to each real server; bytes that reached none are counted for the virtual server alone."""
        return {
            (key, real): meter.counted()
            for key, server in self._servers.items()
            for real, meter in server.meters.items()
        }

    @override
    async def failed_connections(self) -> Mapping[BackendKey, FailedConnections]:
        """Return what real servers refused, did not answer and reset; over UDP, what ICMP refused."""
        return {
            (key, real): meter.failed()
            for key, server in self._servers.items()
            for real, meter in server.meters.items()
        }

    @override
    async def close(self) -> None:
        """Close all sockets, which ends all traffic."""
        for key in list(self._servers):
            await self._delete(key)

    async def _run(self, operation: Operation) -> CodedText | None:
        """Run one operation; returns why it failed, or None if it succeeded."""
        match operation:
            case BindVip(address):
                return await self._bind(address)
            case UnbindVip(address):
                return await _interface_does(lambda: self._interface.unbind(address), f"VIP {address} stays bound")
            case AddVirtualServer(key):
                return await self._add(key, operation)
            case EditVirtualServer(key):
                return self._edit(key, operation)
            case DeleteVirtualServer(key):
                await self._delete(key)
            case AddRealServer(key, real, settings) | EditRealServer(key, real, settings):
                return self._put(key, real, settings)
            case DeleteRealServer(key, real):
                if key in self._servers:
                    self._servers[key].put(real, None)
        return None

    async def _add(self, key: VirtualKey, operation: AddVirtualServer) -> CodedText | None:
        """Add a virtual server; one that exists is edited. Returns why it failed, or None."""
        if key in self._servers:
            return self._edit(key, operation)
        if key.transport is Transport.SCTP:
            return _not_by_a_proxy("SCTP", "remove the port from the labels")
        server = self._servers[key] = _UserspaceServer(key, operation, self._on_refused, self._barred, self._shares)
        self._at.setdefault(key.address, {})[key] = server
        return await self._listen(server, waits_for_address=True)

    def _edit(self, key: VirtualKey, wanted: AddVirtualServer | EditVirtualServer) -> CodedText | None:
        """Change the settings of a virtual server. Returns why it failed, or None."""
        if key not in self._servers:
            return _no_virtual_server(key)
        balance = self._servers[key].balance
        balance.scheduler, balance.persistence, balance.flags = wanted.scheduler, wanted.persistence, wanted.flags
        return None

    def _put(self, key: VirtualKey, real: RealKey, settings: RealServer) -> CodedText | None:
        """Add or change a real server. Returns why it failed, or None."""
        if key not in self._servers:
            return _no_virtual_server(key)
        if settings.forwarding is not Forwarding.MASQUERADE:
            return _not_by_a_proxy(f"forwarding {settings.forwarding}", "write routing.forwarding: masquerade")
        self._servers[key].put(real, settings)
        return None

    async def _bind(self, address: Address) -> CodedText | None:
        """Bind a VIP and open the sockets of its virtual servers. Returns why it failed, or None."""
        failed = await _interface_does(lambda: self._interface.bind(address), f"VIP {address} cannot be bound")
        if failed is not None:
            return failed
        reasons = [
            reason
            for server in list(self._at.get(address, {}).values())
            if not server.listening
            if (reason := await self._listen(server, waits_for_address=False))
        ]
        return reasons[0]._replace(text="; ".join(map(str, reasons))) if reasons else None

    async def _listen(self, server: _UserspaceServer, *, waits_for_address: bool) -> CodedText | None:
        """Open the socket of a virtual server. Returns why that failed, or None.

        A virtual server whose socket cannot be opened is removed, so that the next pass adds it again.
        """
        address, port = self.listening_on(server.key)
        try:
            await server.listener.open(address, port)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and waits_for_address:
                return None  # the VIP is bound after its virtual servers are complete
            await self._delete(server.key)
            reason = f"{address}:{port} cannot be listened on: {_words(error, port)}"
            return CodedText(reason, Code.OPERATION_REFUSED)
        server.listening = True
        return None

    async def _delete(self, key: VirtualKey) -> None:
        server = self._servers.pop(key, None)
        if server is not None:
            there = self._at[key.address]
            del there[key]
            if not there:
                del self._at[key.address]
            await server.listener.close()


async def _interface_does(work: Callable[[], Awaitable[None]], failed: str) -> CodedText | None:
    """Run an action on the VIP interface; returns why it failed, or None."""
    try:
        await work()
    except OSError as error:
        reason = f"{failed}: {error.strerror or error}; run as root, or take [vip] pool from 127.0.0.0/8"
        return CodedText(reason, Code.VIP_INTERFACE)
    return None


def _no_virtual_server(key: VirtualKey) -> CodedText:
    return CodedText(f"there is no virtual server {key}; the next pass adds it first", Code.OPERATION_REFUSED)


def _not_by_a_proxy(what: str, otherwise: str) -> CodedText:
    reason = f"the user-space data plane cannot do {what}: run on a kernel with IPVS, or {otherwise}"
    return CodedText(reason, Code.OPERATION_REFUSED)


def _words(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"the port is taken; `ss -lnp sport = {port}` shows by whom"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not permitted; give CAP_NET_BIND_SERVICE or set [dataplane] low_port_offset = 8000"
    return f"{error.strerror}; see `ip address`"
