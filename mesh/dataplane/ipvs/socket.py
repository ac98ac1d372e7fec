"""A generic netlink socket to IPVS on the event loop: sends changes in batches and reads complete lists.

The kernel does all the work of a datagram inside `send`, and queues its responses in the socket's receive buffer. So
each datagram blocks the event loop: batches of 32 messages have nearly all of the throughput of larger ones and block
it for about 3 ms; between batches the event loop runs. Every message is acknowledged, so each result is known for
certain. The responses to a batch are read before the next one is sent, so the requests cannot overflow the buffer.

Responses are matched by sequence number. After a timeout or a cancelled call the socket is replaced: a list that is not
read to its end would make the kernel refuse the next one with EBUSY.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.ipvs import ipvsmsg

from mesh.dataplane import DataPlaneError
from mesh.dataplane.ipvs.messages import FAMILY_NAME
from mesh.dataplane.netlink import (
    MalformedNetlinkError,
    NetlinkAck,
    NetlinkReply,
    NetlinkRequest,
    list_entries,
    pack_message,
    unpack_messages,
)
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.DATA_PLANE)

T = TypeVar("T")

BATCH = 32
"""Messages per datagram."""
_RECEIVE_BUFFER = 4 << 20
_SLICE = 0.002  # seconds
_DATAGRAM = 1 << 17  # the kernel's dump buffers are 32 KiB at most
_ATTEMPTS = 4  # at a list that keeps changing while it is read
_NETLINK_GENERIC, _SOL_NETLINK, _CAP_ACK, _EXT_ACK = 16, 270, 10, 11  # linux/netlink.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; beyond net.core.rmem_max, with CAP_NET_ADMIN

_NOT_PERMITTED = "not permitted to program IPVS: run as root or with CAP_NET_ADMIN (compose: `cap_add: [NET_ADMIN]`)"
_NO_IPVS = "this kernel offers no IPVS: `modprobe ip_vs` on the host, or install a kernel that has it"


class IpvsSocket:
    """Sends requests to the IPVS of the network namespace in which it was opened.

    Calls from several tasks take turns.
    """

    def __init__(self, family: int, patience: float, open_socket: Callable[[], socket.socket] | None = None) -> None:
        """`open_socket` makes the non-blocking socket, now and after a failure; None makes a netlink socket.

        `family` is the number of IPVS's generic netlink family, `patience` the seconds to wait for a response.
        """
        self._open = open_socket or _open
        self._family = family
        self._patience = patience
        self._sequence = 0
        self._turn = asyncio.Lock()
        """Held during a call: requests and their responses must not interleave."""
        self._socket = self._open()

    @classmethod
    async def open(cls, patience: float = 10.0) -> "IpvsSocket":
        """Look up IPVS, which makes the kernel load its module where possible, and open a socket.

        `patience` is the seconds of silence after which a call gives up. Raises `DataPlaneError` if the kernel has no
        IPVS or if we may not use netlink sockets. A missing permission to program IPVS shows only at the first request.
        """
        return cls(await asyncio.to_thread(_family), patience)

    async def execute(self, requests: Sequence[NetlinkRequest]) -> list[NetlinkAck]:
        """Send changes in order; returns the outcome of each in the same order.

        A refusal does not stop the changes after it.

        Raises `DataPlaneError` if the kernel does not answer or permits nothing; changes that were sent before may have
        happened.
        """
        acks: list[NetlinkAck] = []
        async with self._turn:
            for start in range(0, len(requests), BATCH):
                acks += await self._execute_batch(requests[start : start + BATCH])
                # Each batch blocks the event loop, so let it run in between.
                await asyncio.sleep(0)
        return acks

    async def dump(self, request: NetlinkRequest, parse: Callable[[bytes], T], absent: int = 0) -> list[T]:
        """Return all replies to one request, each parsed. The list is complete, or else `DataPlaneError` is raised.

        `absent` is the errno with which the kernel says that the requested object does not exist; the result is then
        empty.
        """
        (replies,) = await self.dump_each([request], parse, absent)
        return replies

    async def dump_each(
        self, requests: Sequence[NetlinkRequest], parse: Callable[[bytes], T], absent: int = 0
    ) -> list[list[T]]:
        """Return the replies to each of many requests, as `dump` does. The event loop runs every few milliseconds."""
        loop = asyncio.get_running_loop()
        found = []
        async with self._turn:
            began = loop.time()
            for request in requests:
                found.append(await self._dump_whole(request, parse, absent))
                if loop.time() > began + _SLICE:
                    await asyncio.sleep(0)
                    began = loop.time()
        return found

    def close(self) -> None:
        """Close the socket; the kernel keeps what was programmed. A request under way must be cancelled first."""
        self._socket.close()

    async def _execute_batch(self, requests: Sequence[NetlinkRequest]) -> list[NetlinkAck]:
        """Send one batch and return its acknowledgements in order."""
        with self._exchange():
            first = self._send(requests)
            acks: dict[int, NetlinkAck] = {}
            while len(acks) < len(requests):
                for answer in unpack_messages(await self._receive()):
                    if isinstance(answer, NetlinkAck) and 0 <= answer.sequence - first < len(requests):
                        acks[answer.sequence] = answer
            ordered = [acks[first + index] for index in range(len(requests))]
        for ack in ordered:
            _refuse_if_not_permitted(ack)
        return ordered

    async def _dump_whole(self, request: NetlinkRequest, parse: Callable[[bytes], T], absent: int) -> list[T]:
        """Repeat a request until its list is not interrupted by a change, up to a limit."""
        for _ in range(_ATTEMPTS):
            replies = await self._dump_once(request, parse, absent)
            if replies is not None:
                return replies
            await asyncio.sleep(0)
        raise DataPlaneError(
            Code.NETLINK_FAILED, "the IPVS tables changed all the time while they were read: try again"
        )

    async def _dump_once(self, request: NetlinkRequest, parse: Callable[[bytes], T], absent: int) -> list[T] | None:
        """Read one list; None if the table changed meanwhile."""
        replies: list[T] = []
        interrupted = False
        with self._exchange():
            sequence = self._send([request])
            while True:
                datagram = await self._receive()
                # The usual datagram holds nothing but list entries and takes the cheap path; the last one ends the
                # list.
                bodies = list_entries(datagram, sequence)
                if bodies is not None:
                    replies += map(parse, bodies)
                    continue
                for answer in unpack_messages(datagram):
                    if answer.sequence != sequence:
                        continue
                    interrupted |= answer.interrupted
                    if isinstance(answer, NetlinkReply):
                        replies.append(parse(answer.body))
                        continue
                    _refuse_if_not_permitted(answer)
                    if answer.error and answer.error == absent:
                        return []
                    if answer.error:
                        raise _refusal(answer)
                    return None if interrupted else replies

    def _send(self, requests: Sequence[NetlinkRequest]) -> int:
        """Send requests in one datagram; returns the sequence number of the first. The others follow it."""
        first = self._sequence + 1
        self._sequence += len(requests)
        messages = [pack_message(request, self._family, first + index) for index, request in enumerate(requests)]
        self._socket.send(b"".join(messages))
        return first

    async def _receive(self) -> bytes:
        """Return the next datagram. Raises `TimeoutError`, and `OSError` for an error of the socket."""
        try:
            return self._socket.recv(_DATAGRAM)  # the kernel has nearly always queued it during `send`
        except BlockingIOError:
            async with asyncio.timeout(self._patience):
                return await self._received_later()

    async def _received_later(self) -> bytes:
        """Wait for the next datagram."""
        loop = asyncio.get_running_loop()
        while True:
            readable = loop.create_future()
            loop.add_reader(self._socket, bulkhead.callback(_resolve), readable)
            try:
                await readable
            finally:
                loop.remove_reader(self._socket)
            try:
                return self._socket.recv(_DATAGRAM)
            except BlockingIOError:
                continue

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Surround a request and all its responses: if anything fails in between, replace the socket."""
        complete = False
        try:
            with _as_data_plane_error(self._patience):
                yield
            complete = True
        finally:
            if not complete and self._socket.fileno() >= 0:
                self._socket.close()
                self._socket = self._open()


def _resolve(readable: "asyncio.Future[None]") -> None:
    if not readable.done():
        readable.set_result(None)


@contextmanager
def _as_data_plane_error(patience: float) -> Iterator[None]:
    """Turn errors of the socket into `DataPlaneError` with a remedy."""
    try:
        yield
    except TimeoutError as error:
        raise DataPlaneError(
            Code.NETLINK_FAILED, f"the kernel did not answer about IPVS within {patience:g} s: look into `dmesg`"
        ) from error
    except MalformedNetlinkError as error:
        raise DataPlaneError(
            Code.NETLINK_FAILED, f"the kernel's answer about IPVS is not understood ({error}): report it"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            reason = "the kernel dropped answers about IPVS (ENOBUFS), so some results are unknown: read it again"
            raise DataPlaneError(Code.NETLINK_FAILED, reason) from error
        raise DataPlaneError(
            Code.NETLINK_FAILED, f"the netlink socket to IPVS failed ({error.strerror}): try again"
        ) from error


def _refuse_if_not_permitted(ack: NetlinkAck) -> None:
    """Raise `DataPlaneError` if an acknowledgement says that we may not program IPVS."""
    if ack.error in {errno.EPERM, errno.EACCES}:
        raise DataPlaneError(Code.NOT_PERMITTED, _NOT_PERMITTED)


def _refusal(ack: NetlinkAck) -> DataPlaneError:
    """Explain an error of a list, ending with the remedy."""
    if ack.error == errno.ENOENT:  # of the family: the module was unloaded under us
        return DataPlaneError(Code.NO_IPVS, _NO_IPVS)
    detail = f", {ack.text}" if ack.text else ""
    reason = f"the kernel refuses to show its IPVS tables ({os.strerror(ack.error)}{detail}): look into `dmesg`"
    return DataPlaneError(Code.NETLINK_FAILED, reason)


def _open() -> socket.socket:
    """Open and configure a netlink socket. Raises `DataPlaneError`."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_GENERIC)
    except OSError as error:
        reason = (
            f"a netlink socket cannot be opened ({error.strerror}): allow AF_NETLINK in the sandbox or seccomp profile"
        )
        raise DataPlaneError(Code.NETLINK_FAILED, reason) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # as far as net.core.rmem_max allows
    sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
    sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
    sock.bind((0, 0))
    return sock


def _family() -> int:
    """Return the number of IPVS's generic netlink family. Raises `DataPlaneError`.

    It blocks, since the kernel may run modprobe. pyroute2's class cannot share a thread with a running event loop, so
    this must be called in a thread of its own.
    """
    try:
        generic = GenericNetlinkSocket()
    except OSError as error:
        raise DataPlaneError(
            Code.NETLINK_FAILED, f"a netlink socket cannot be opened ({error.strerror}): allow AF_NETLINK"
        ) from error
    try:
        generic.asyncore.module_err_level = "debug"  # our caller reports a missing module, once
        generic.bind(FAMILY_NAME, ipvsmsg)
        return int(generic.prid)
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            raise DataPlaneError(Code.NO_IPVS, _NO_IPVS) from error
        raise DataPlaneError(
            Code.NETLINK_FAILED, f"IPVS cannot be looked up ({os.strerror(error.code)}): {_NOT_PERMITTED}"
        ) from error
    finally:
        generic.close()
