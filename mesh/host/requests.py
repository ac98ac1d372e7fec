"""Sends test requests from the network namespace of the calling thread, all at once, and says what came back.

It blocks its thread, and uses neither the resolver of the C library nor any file: the namespace of a thread decides
where its sockets are, while files and the resolver stay those of the host.
"""

import errno
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from mesh.model.request import RequestOutcome, RequestResult, ServiceRequest
from mesh.model.service import Address, Transport
from mesh.util.dns_query import AddressAnswer, decode_address_answer, encode_address_query
from mesh.util.sockets import LINGER_RESET

MAX_AT_ONCE = 128
"""Requests that are under way at a time; each has a socket or two."""
REPEAT_AFTER = 1.0
"""Seconds after which a datagram without an answer is sent a second time, as resolvers do."""

_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
"""`struct sock_extended_err` (linux/errqueue.h): errno, origin, type, code, padding, info, data."""
_ORIGIN_ICMP = (2, 3)
"""SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6."""
_PORT_UNREACHABLE = ((2, 3, 3), (3, 1, 4))
"""Origin, type and code (RFC 792, RFC 4443)."""
_DATAGRAM = 65535
_NOT_SENT = frozenset(
    (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.EINVAL)
)

PortsCallback = Callable[[frozenset[int]], None]
"""Called with the client's ports before anything is sent from them."""


def send_requests(
    requests: Sequence[ServiceRequest],
    nameservers: Sequence[Address],
    patience: float,
    on_ports: PortsCallback | None = None,
) -> tuple[RequestResult, ...]:
    """Send every request and return the results in the same order.

    `nameservers` are asked for names, on port 53, in turn, unless a request names its own. `patience`: seconds until a
    request counts as not answered. `on_ports` is called for each group of requests before they are sent; then, all must
    be by address.
    """
    results: list[RequestResult] = []
    for first in range(0, len(requests), MAX_AT_ONCE):
        group = [_Attempt(request, nameservers, patience) for request in requests[first : first + MAX_AT_ONCE]]
        if on_ports is not None:
            on_ports(frozenset(port for attempt in group if (port := attempt.bind()) is not None))
        results += _run(group)
    return tuple(results)


def local_address_towards(address: Address) -> Address | None:
    """Return the source address of packets from this namespace to an address; None without a route. Sends nothing."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))
        except OSError:
            return None
        return str(ip_address(sock.getsockname()[0]))


def has_address(address: Address) -> bool:
    """Return whether this namespace has the address."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
        return True


def _run(attempts: Sequence["_Attempt"]) -> Iterable[RequestResult]:
    with selectors.DefaultSelector() as selector:
        for attempt in attempts:
            attempt.begin(selector)
        while waiting := [attempt for attempt in attempts if attempt.result is None]:
            now = time.monotonic()
            for key, _ in selector.select(max(0.0, min(attempt.due for attempt in waiting) - now)):
                key.data.ready()
            now = time.monotonic()
            for attempt in waiting:
                if attempt.result is None and attempt.due <= now:
                    attempt.late(now)
    return [attempt.result for attempt in attempts if attempt.result is not None]


class _Attempt:
    """One request on its way: it looks the name up, connects, and watches what comes back."""

    def __init__(self, request: ServiceRequest, nameservers: Sequence[Address], patience: float) -> None:
        self.result: RequestResult | None = None
        self.due = 0.0
        """When `late` must be called, on the monotonic clock."""
        self._request = request
        self._nameservers = nameservers if request.nameserver is None else (request.nameserver,)
        self._patience = patience
        self._began = 0.0
        self._sock: socket.socket | None = None
        self._lookup: _Lookup | None = None
        self._selector: selectors.BaseSelector | None = None
        self._address = request.address
        self._connected_after: float | None = None
        """Seconds until the connection was accepted, while it must stay open; None before."""
        self._repeated = False

    def bind(self) -> int | None:
        """Open the socket, bind it to a port and return that; None for a request by name or if it is not possible."""
        if self._address is None:
            return None
        try:
            sock = self._open(self._address)
            sock.bind(("::" if ":" in self._address else "0.0.0.0", self._request.source_port))
        except OSError:
            return None  # it is sent from another port, or `begin` meets the same error and reports it
        return int(sock.getsockname()[1])

    def begin(self, selector: selectors.BaseSelector) -> None:
        """Send the first packet."""
        self._selector = selector
        self._began = time.monotonic()
        self.due = self._began + self._patience
        if self._address is not None:
            if self._request.source_port and self._sock is None:
                self.bind()
            self._connect(self._address)
        elif self._request.name is None or not self._nameservers:
            self._finish(RequestOutcome.NO_NAME, "no name server is configured there")
        else:
            self._look_up(self._request.name)

    def ready(self) -> None:
        """Read what came back."""
        try:
            if self._lookup is not None:
                self._read_answer(self._lookup)
            elif self._request.transport is Transport.UDP:
                self._sockets().recv(_DATAGRAM)
                self._finish(RequestOutcome.ANSWERED)
            else:
                self._read_tcp()
        except BlockingIOError:
            pass  # a wake-up without data: the packet was discarded, for example for its checksum
        except OSError as error:
            self._fail(error)

    def late(self, now: float) -> None:
        """Send a datagram again, or give up."""
        if self._connected_after is not None:
            self._finish(RequestOutcome.ANSWERED, after=self._connected_after)
        elif now < self._began + self._patience and not self._repeated:
            self._repeated = True
            self.due = self._began + self._patience
            try:
                if self._lookup is not None:
                    self._lookup.send_again()
                else:
                    self._sockets().send(self._request.payload)
            except OSError as error:
                self._fail(error)
        elif self._lookup is not None:
            self._finish(RequestOutcome.NO_NAME, f"no answer of {self._lookup.described} within {self._patience:g} s")
        else:
            self._finish(RequestOutcome.NO_ANSWER, f"no answer within {self._patience:g} s")

    # ------------------------------------------------------------------------------------------------------ steps

    def _look_up(self, name: str) -> None:
        try:
            self._lookup = _Lookup(name, self._nameservers, ipv6=self._request.ipv6)
            self._lookup.send_first()
        except (OSError, ValueError) as error:
            described = "" if self._lookup is None else f"{self._lookup.described}: "
            self._finish(RequestOutcome.NO_NAME, f"{described}{_words(error)}")
            return
        self.due = min(self.due, self._began + REPEAT_AFTER)
        for sock in self._lookup.sockets:
            self._watch(sock, selectors.EVENT_READ)

    def _read_answer(self, lookup: "_Lookup") -> None:
        answer = lookup.read()
        if answer is None:
            return
        self._unwatch(lookup.sockets)
        lookup.close()
        self._lookup, self._repeated = None, False
        if not answer.addresses:
            status = "no address" if answer.status == "no error" else answer.status
            self._finish(RequestOutcome.NO_NAME, f"{lookup.described}: {status}")
            return
        self._address = answer.addresses[0]
        self.due = self._began + self._patience
        self._connect(self._address)

    def _connect(self, address: Address) -> None:
        try:
            sock = self._sock or self._open(address)
            sock.setblocking(False)
            status = sock.connect_ex((address, self._request.port))
            if status not in (0, errno.EINPROGRESS):
                raise OSError(status, os.strerror(status))
            if self._request.transport is Transport.UDP:
                sock.send(self._request.payload)
                self.due = min(self.due, time.monotonic() + REPEAT_AFTER)
                self._watch(sock, selectors.EVENT_READ)
            else:
                self._watch(sock, selectors.EVENT_WRITE)
        except OSError as error:
            self._fail(error)

    def _read_tcp(self) -> None:
        sock = self._sockets()
        if self._connected_after is not None:
            closed = not sock.recv(1)
            outcome = RequestOutcome.CLOSED if closed else RequestOutcome.ANSWERED
            self._finish(outcome, "closed at once" if closed else "", after=self._connected_after)
            return
        if status := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(status, os.strerror(status))
        elapsed = time.monotonic() - self._began
        if not self._request.linger:
            self._finish(RequestOutcome.ANSWERED, after=elapsed)
            return
        self._connected_after = elapsed
        self.due = time.monotonic() + self._request.linger
        assert self._selector is not None
        self._selector.modify(sock, selectors.EVENT_READ, self)

    def _fail(self, error: OSError) -> None:
        """Finish with an error of the socket."""
        if self._lookup is not None:
            self._finish(RequestOutcome.NO_NAME, f"{self._lookup.described}: {_words(error)}")
        elif self._connected_after is not None or error.errno == errno.ECONNRESET:
            # Before the connection is accepted, a reset is "connection refused".
            self._finish(RequestOutcome.CLOSED, f"closed at once: {_words(error)}", after=self._connected_after)
        elif (icmp := _icmp_error(self._sock)) is not None:
            origin, sender = icmp
            # A host without a listener resets TCP. The sender proves little: connection tracking translates it, too.
            is_udp = self._request.transport is Transport.UDP
            at_destination = is_udp and origin in _PORT_UNREACHABLE and sender == self._address
            outcome = RequestOutcome.REFUSED if at_destination else RequestOutcome.REJECTED
            self._finish(outcome, f"ICMP type {origin[1]} code {origin[2]} of {sender}")
        elif error.errno == errno.ECONNREFUSED:
            self._finish(RequestOutcome.REFUSED, _words(error))
        elif error.errno in _NOT_SENT:
            self._finish(RequestOutcome.NOT_SENT, _words(error))
        else:
            self._finish(RequestOutcome.NO_ANSWER, _words(error))

    def _finish(self, outcome: RequestOutcome, detail: str = "", *, after: float | None = None) -> None:
        """Set the result and close the sockets. `after`: seconds until the outcome; None: until now."""
        source: tuple[Address, int] | None = None
        if self._sock is not None and self._sock.getsockname()[1]:
            source = self._sock.getsockname()[:2]
        self.result = RequestResult(
            outcome,
            time.monotonic() - self._began if after is None else after,
            detail,
            self._address,
            *(source or (None, None)),
        )
        if self._lookup is not None:
            self._unwatch(self._lookup.sockets)
            self._lookup.close()
        if self._sock is not None:
            self._unwatch([self._sock])
            self._sock.close()

    # ------------------------------------------------------------------------------------------------------ sockets

    def _open(self, address: Address) -> socket.socket:
        kind = socket.SOCK_DGRAM if self._request.transport is Transport.UDP else socket.SOCK_STREAM
        sock = socket.socket(_family(address), kind)
        self._sock = sock
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        # Tells a refusal of the destination from one by a packet filter on the way.
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        return sock

    def _sockets(self) -> socket.socket:
        assert self._sock is not None
        return self._sock

    def _watch(self, sock: socket.socket, events: int) -> None:
        assert self._selector is not None
        self._selector.register(sock, events, self)

    def _unwatch(self, sockets: Iterable[socket.socket]) -> None:
        for sock in sockets:
            if self._selector is not None and sock in self._selector.get_map():
                self._selector.unregister(sock)


class _Lookup:
    """One question to the name servers: the first one is asked at once, all others after a while."""

    def __init__(self, name: str, nameservers: Sequence[Address], *, ipv6: bool) -> None:
        """Raises `ValueError` if it is not a DNS name."""
        self._number = int.from_bytes(os.urandom(2), "big")
        self._query = encode_address_query(name, self._number, ipv6=ipv6)
        self._nameservers = tuple(nameservers)
        self.sockets = [socket.socket(_family(nameserver), socket.SOCK_DGRAM) for nameserver in self._nameservers]
        for sock in self.sockets:
            sock.setblocking(False)

    @property
    def described(self) -> str:
        """The name servers, for a sentence."""
        return f"name server {', '.join(self._nameservers)}"

    def send_first(self) -> None:
        """Ask the first name server that the query can be sent to. Raises `OSError` if there is none."""
        for number in range(len(self.sockets)):
            try:
                self._ask(number)
            except OSError:
                if number == len(self.sockets) - 1:
                    raise
                continue
            return

    def send_again(self) -> None:
        """Ask every name server that the query can be sent to."""
        for number in range(len(self.sockets)):
            with suppress(OSError):
                self._ask(number)

    def read(self) -> AddressAnswer | None:
        """Return the answer, or None if there is none yet. Raises `OSError`, also if the only name server refuses."""
        for sock in self.sockets:
            try:
                packet = sock.recv(_DATAGRAM)
            except BlockingIOError:
                continue
            except ConnectionRefusedError:
                if len(self.sockets) == 1:
                    raise
                continue
            if (answer := decode_address_answer(packet, self._number)) is not None:
                return answer
        return None

    def close(self) -> None:
        """Close the sockets."""
        for sock in self.sockets:
            sock.close()

    def _ask(self, number: int) -> None:
        self.sockets[number].connect((self._nameservers[number], 53))
        self.sockets[number].send(self._query)


def _icmp_error(sock: socket.socket | None) -> tuple[tuple[int, int, int], Address] | None:
    """Return origin, type and code of the ICMP error that ended a request, and its sender; None if it was not ICMP."""
    if sock is None:
        return None
    try:
        _, ancillary, _, _ = sock.recvmsg(512, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError:
        return None
    for _, _, data in ancillary:
        if len(data) < _EXTENDED_ERROR.size:
            continue
        _, origin, kind, code, *_ = _EXTENDED_ERROR.unpack_from(data)
        if origin in _ORIGIN_ICMP:
            return (origin, kind, code), _offender(data[_EXTENDED_ERROR.size :])
    return None


def _offender(raw: bytes) -> Address:
    """Return the address in a `struct sockaddr` (SO_EE_OFFENDER); `an unknown sender` if there is none."""
    family = int.from_bytes(raw[:2], sys.byteorder) if len(raw) >= 8 else 0
    if family == socket.AF_INET:
        return str(ip_address(raw[4:8]))
    if family == socket.AF_INET6 and len(raw) >= 24:
        return str(ip_address(raw[8:24]))
    return "an unknown sender"


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
