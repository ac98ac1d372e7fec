"""The netlink socket to netfilter: the number of the current ruleset, and tracked connections.

Listing connections can take long if there are many, so all of it happens in one thread, which the socket may block for
a while.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from mesh.dataplane import DataPlaneError
from mesh.dataplane.conntrack import messages
from mesh.dataplane.conntrack.messages import ConntrackEntry
from mesh.dataplane.netlink import MalformedNetlinkError, NetlinkAck, NetlinkAttributes, NetlinkReply, unpack_messages
from mesh.model.codes import Code
from mesh.model.service import Transport
from mesh.model.table import VirtualKey

T = TypeVar("T")

_NETLINK_NETFILTER = 12  # linux/netlink.h
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
_SEND_BUFFER = 8 << 20
_RECEIVE_BUFFER = 4 << 20
_DATAGRAM = 1 << 17
_PATIENCE = 10.0
_ATTEMPTS = 4  # at a list that keeps changing while it is read
_FEW = 16
"""Up to so many virtual servers are requested one by one; each request goes through the kernel's whole table."""
_BATCH = 64
_GENERATION_ID = 1  # NFTA_GEN_ID

_NOT_PERMITTED = "not permitted to see tracked connections: run as root or with CAP_NET_ADMIN"
_NO_CONNTRACK = "this kernel does not tell of tracked connections: `modprobe nf_conntrack_netlink` on the host"


class NetfilterSocket:
    """Sends requests to the netfilter of the network namespace in which it was made.

    Calls from several tasks take turns.
    """

    def __init__(self, version: int) -> None:
        """`version` is the IP version. Raises `DataPlaneError` if no netlink socket can be opened."""
        self._family = messages.address_family(version)
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        except OSError as error:
            raise DataPlaneError(
                Code.NETLINK_FAILED,
                f"a netlink socket cannot be opened ({error.strerror}): allow AF_NETLINK in the seccomp profile",
            ) from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        # A transaction is one datagram.
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        self._socket.settimeout(_PATIENCE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netfilter")

    async def close(self) -> None:
        """Close the socket after the request under way, if any, is answered."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._socket.close)
        self._thread.shutdown(wait=False)

    async def generation(self) -> int:
        """Return the number of the current ruleset. Every change of any table by any program increments it.

        Raises `DataPlaneError`.
        """
        return await self._in_thread(self._generation)

    async def entries(self, keys: Collection[VirtualKey]) -> list[ConntrackEntry]:
        """Return the tracked connections to these virtual servers; empty for none. Raises `DataPlaneError`."""
        return await self._in_thread(lambda: self._entries(frozenset(keys))) if keys else []

    async def unanswered(self, ours: Container[VirtualKey]) -> list[ConntrackEntry]:
        """Return the tracked connections to these virtual servers that have seen no reply. Raises `DataPlaneError`."""
        entries = await self._in_thread(
            lambda: self._list(partial(messages.list_unanswered_request, self._family), ours)
        )
        return [entry for entry in entries if not entry.answered]

    async def of_transport(self, transport: Transport, ours: Container[VirtualKey]) -> list[ConntrackEntry]:
        """Return the tracked connections of one transport to these virtual servers. Raises `DataPlaneError`."""
        ask = partial(messages.list_transport_request, transport, self._family)
        entries = await self._in_thread(lambda: self._list(ask, ours))
        return [entry for entry in entries if entry.virtual.transport is transport]

    async def forget(self, entries: Sequence[ConntrackEntry]) -> None:
        """Delete tracked connections; one that has ended meanwhile counts as deleted. Raises `DataPlaneError`."""
        if entries:
            await self._in_thread(lambda: self._forget(entries))

    async def dump(self, ask: Callable[[int], bytes], parse: Callable[[list[bytes]], T]) -> T:
        """Return what `parse` makes of the bodies of a complete list; `ask` returns the request for a sequence number.

        Raises `DataPlaneError`.
        """
        return await self._in_thread(lambda: parse(self._dump(ask)))

    async def commit(self, build: Callable[[int], bytes]) -> None:
        """Run a transaction; `build` returns it for a sequence number, and its last message asks to be acknowledged.

        Raises `DataPlaneError`; then nothing has changed.
        """
        await self._in_thread(lambda: self._commit(build))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run a function in the socket's thread; its errors become `DataPlaneError` with a remedy."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise DataPlaneError(
                Code.NETLINK_FAILED, f"netfilter did not answer within {_PATIENCE:g} s: look into `dmesg`"
            ) from error
        except MalformedNetlinkError as error:
            raise DataPlaneError(
                Code.NETLINK_FAILED, f"netfilter's answer is not understood ({error}): report it"
            ) from error
        except OSError as error:
            raise DataPlaneError(
                Code.NETLINK_FAILED, f"the netlink socket to netfilter failed ({error.strerror}): try again"
            ) from error

    def _next(self) -> int:
        """Return the next sequence number."""
        self._sequence += 1
        return self._sequence

    def _generation(self) -> int:
        sequence = self._next()
        self._socket.send(messages.build_request(messages.GENERATION, 0, sequence))
        for answer in self._answers():
            if answer.sequence != sequence:
                continue
            if isinstance(answer, NetlinkReply):
                return NetlinkAttributes(answer.body).number(messages.BIG, _GENERATION_ID)
            raise _refusal(answer.error)
        raise AssertionError("unreachable")

    def _entries(self, keys: frozenset[VirtualKey]) -> list[ConntrackEntry]:
        if len(keys) > _FEW:
            return self._list(partial(messages.list_all_request, self._family), keys)
        return [entry for key in keys for entry in self._list(partial(messages.list_request, key), frozenset({key}))]

    def _list(self, ask: Callable[[int], bytes], keys: Container[VirtualKey]) -> list[ConntrackEntry]:
        """Return a complete list with each entry once.

        A table that changes while it is read is read again, up to a limit; then the list may lack entries.
        """
        found: dict[bytes, ConntrackEntry] = {}
        for _ in range(_ATTEMPTS):
            sequence = self._next()
            self._socket.send(ask(sequence))
            interrupted = False
            for answer in self._answers():
                if answer.sequence != sequence:
                    continue
                interrupted |= answer.interrupted
                if isinstance(answer, NetlinkAck):
                    if answer.error:
                        raise _refusal(answer.error)
                    break
                entry = messages.parse_entry(answer.body, keys)
                if entry is not None:
                    found[entry.handle] = entry
            if not interrupted:
                break
        return list(found.values())

    def _dump(self, ask: Callable[[int], bytes]) -> list[bytes]:
        """Return the bodies of a list; one that changes while it is read is read again, up to a limit."""
        for _ in range(_ATTEMPTS):
            sequence = self._next()
            self._socket.send(ask(sequence))
            bodies: list[bytes] = []
            interrupted = False
            for answer in self._answers():
                if answer.sequence != sequence:
                    continue
                interrupted |= answer.interrupted
                if isinstance(answer, NetlinkAck):
                    if answer.error:
                        raise OSError(answer.error, os.strerror(answer.error))
                    break
                bodies.append(answer.body)
            if not interrupted:
                return bodies
        raise InterruptedError(errno.EINTR, "the list keeps changing")

    def _commit(self, build: Callable[[int], bytes]) -> None:
        sequence = self._next()
        self._socket.send(build(sequence))
        for answer in self._answers():
            if answer.sequence == sequence and isinstance(answer, NetlinkAck):
                if answer.error:
                    raise OSError(answer.error, os.strerror(answer.error))
                return

    def _forget(self, entries: Sequence[ConntrackEntry]) -> None:
        for start in range(0, len(entries), _BATCH):
            batch = {self._next(): entry for entry in entries[start : start + _BATCH]}
            self._socket.send(b"".join(messages.delete_request(entry, sequence) for sequence, entry in batch.items()))
            for answer in self._answers():
                if isinstance(answer, NetlinkAck) and answer.sequence in batch:
                    del batch[answer.sequence]
                    if answer.error not in {0, errno.ENOENT}:
                        raise _refusal(answer.error)
                    if not batch:
                        break

    def _answers(self) -> Iterator[NetlinkAck | NetlinkReply]:
        """Yield messages until the caller has what it waits for."""
        while True:
            yield from unpack_messages(self._socket.recv(_DATAGRAM))


def _refusal(number: int) -> DataPlaneError:
    """Explain an error, ending with the remedy."""
    if number in {errno.EPERM, errno.EACCES}:
        return DataPlaneError(Code.NOT_PERMITTED, _NOT_PERMITTED)
    if number in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT}:
        return DataPlaneError(Code.NFTABLES_CONNECTIONS_UNSEEN, _NO_CONNTRACK)
    reason = f"netfilter refuses to answer ({os.strerror(number)}): look into `dmesg`"
    return DataPlaneError(Code.NETLINK_FAILED, reason)
