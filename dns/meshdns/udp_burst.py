"""Sends and receives several datagrams over one socket per system call, for callers that have them as bytes objects.

Sending a single datagram costs a system call, and often an interrupt that wakes the receiver; datagrams of one moment
can share both. `udp_batch` is tied to one socket and never looks at a byte; this is one pair of buffers for all sockets
of a thread. Where the kernel lacks the calls, datagrams are sent one by one.
"""

import ctypes
import errno
import mmap
import socket
from collections.abc import Sequence
from itertools import accumulate

from meshdns import mmsg
from meshdns.mmsg import IoVector, MmsgHeader, load_calls

SLOTS = 32
"""Datagrams per call."""
MAX_DATAGRAM_BYTES = 65535
"""Maximum bytes of a received datagram: none is longer (RFC 768)."""
_STRIDE = MAX_DATAGRAM_BYTES + 65
"""Bytes from one slot to the next: an odd number of cache lines, so that slots do not compete for the same cache sets.
The kernel provides memory only for the pages that a datagram has filled.
"""
_SENT = 64 << 10
"""Maximum bytes of all datagrams sent by one call."""
_SIZE = ctypes.sizeof(MmsgHeader)


def open_burst() -> "UdpBurst | UnbatchedUdp":
    """Return the fastest implementation that this host supports."""
    return UdpBurst() if mmsg.available() else UnbatchedUdp()


class UnbatchedUdp:
    """Sends and receives datagrams with one system call each."""

    def send(self, sock: socket.socket, datagrams: Sequence[bytes]) -> None:
        """Send datagrams over a connected socket.

        Datagrams that the kernel has no room for are lost. Raises OSError if the peer cannot be reached.
        """
        for each in datagrams:
            try:
                sock.send(each)
            except BlockingIOError:
                return

    def receive(self, sock: socket.socket) -> list[bytes]:
        """Return the waiting datagrams, at most `SLOTS`. Raises OSError if the peer cannot be reached."""
        found: list[bytes] = []
        while len(found) < SLOTS:
            try:
                found.append(sock.recv(MAX_DATAGRAM_BYTES))
            except BlockingIOError:
                break
        return found


class UdpBurst:
    """Sends and receives datagrams with sendmmsg(2) and recvmmsg(2)."""

    def __init__(self) -> None:
        self._receive, self._send = load_calls()
        self._flags = ctypes.c_int(socket.MSG_DONTWAIT)
        self._in, self._out = mmap.mmap(-1, SLOTS * _STRIDE), mmap.mmap(-1, _SENT)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._out))
        headers, vectors = (
            [mmap.mmap(-1, SLOTS * ctypes.sizeof(kind)) for _ in range(2)] for kind in (MmsgHeader, IoVector)
        )
        self._headers = [(MmsgHeader * SLOTS).from_buffer(part) for part in headers]
        self._vectors = [(IoVector * SLOTS).from_buffer(part) for part in vectors]
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._in))
        for slot in range(SLOTS):
            self._vectors[0][slot] = IoVector(base + slot * _STRIDE, MAX_DATAGRAM_BYTES)
            for way, vector in zip(self._headers, self._vectors, strict=True):
                way[slot].message.vectors = ctypes.addressof(vector) + slot * ctypes.sizeof(IoVector)
                way[slot].message.vector_count = 1
        self._lengths = memoryview(headers[0]).cast("I")[MmsgHeader.length.offset // 4 :: _SIZE // 4]
        places = memoryview(vectors[1]).cast("L")
        self._places, self._sizes = places[0::2], places[1::2]

    def send(self, sock: socket.socket, datagrams: Sequence[bytes]) -> None:
        """Send datagrams over a connected socket.

        Datagrams that the kernel has no room for are lost. Raises OSError if the peer cannot be reached.
        """
        fd = sock.fileno()
        for first in range(0, len(datagrams), SLOTS):
            part = datagrams[first : first + SLOTS]
            self._put(part)
            self._send_all(fd, len(part))

    def receive(self, sock: socket.socket) -> list[bytes]:
        """Return the waiting datagrams, at most `SLOTS`. Raises OSError if the peer cannot be reached."""
        count = self._receive(sock.fileno(), self._headers[0], SLOTS, self._flags, None)
        if count < 0:
            if (error := ctypes.get_errno()) in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(error, "recvmmsg")
        data = self._in
        return [
            data[start : start + length]
            for start, length in zip(range(0, count * _STRIDE, _STRIDE), self._lengths[:count].tolist(), strict=True)
        ]

    def _put(self, datagrams: Sequence[bytes]) -> None:
        """Copy datagrams into the send buffer one behind the other, and point the vectors to them."""
        data, sizes = b"".join(datagrams), list(map(len, datagrams))
        self._out[: len(data)] = data
        # accumulate() yields one place more than there are sizes: the end of the last datagram.
        for slot, (place, size) in enumerate(zip(accumulate(sizes, initial=self._base), sizes, strict=False)):
            self._places[slot], self._sizes[slot] = place, size

    def _send_all(self, fd: int, count: int) -> None:
        """Send the first `count` datagrams of the buffer; one call may send only some of them."""
        first = 0
        while first < count:
            sent = self._send(fd, ctypes.byref(self._headers[1], first * _SIZE), count - first, self._flags)
            if sent <= 0:
                if (error := ctypes.get_errno()) in (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM):
                    return
                raise OSError(error, "sendmmsg")
            first += sent
