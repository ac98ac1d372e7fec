"""Datagrams by the dozen: recvmmsg(2) and sendmmsg(2) over buffers that are wired once.

A datagram that Python receives on its own costs a system call, a bytes object, an address tuple and a turn of the
event loop, and as much again to answer it. Here one call fetches up to `SLOTS` of them into fixed buffers; an answer
is written into the slot's other buffer, and one call sends them all. The headers for receiving and for sending point to
the same address buffer, so that the peer's address goes back without Python ever looking at it.

On a socket that is bound to all addresses the kernel says which one was asked (IP_PKTINFO, ip(7) and ipv6(7)), and
these octets go back the same way: the answer leaves from the address that was asked.
"""

import ctypes
import errno
import mmap
import socket
import struct
import sys
from collections.abc import Callable

SLOTS = 64
"""Datagrams per call; 16 to 256 differ by nothing that can be measured."""
LONGEST = 1024
"""Octets of a question; a longer one is cut, and said to be malformed."""
ROOM = 1280
"""Octets of an answer."""
QUESTION, ANSWER = LONGEST + 64, ROOM + 64
"""Octets from one slot to the next: an odd number of cache lines, so that slots do not compete for the same ones."""

ADDRESS = 32
"""Octets per slot for a socket address: 16 (ip(7)) or 28 (ipv6(7)), aligned."""
_CONTROL = 64
_PKTINFO4, _RECVPKTINFO6 = 8, 49  # linux/in.h IP_PKTINFO, linux/in6.h IPV6_RECVPKTINFO
_PASSING = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}
"""The kernel has no room now: what is left is dropped, as the network might. Other errors are of one datagram."""


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr: recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr: recvmmsg(2)."""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint32))


_SIZE = ctypes.sizeof(_Header)
_LENGTHS = slice(_Header.length.offset // 4, None, _SIZE // 4)
_ANY_INTERFACE = memoryview(bytes(4 * SLOTS)).cast("I")


def available() -> bool:
    """Whether this kernel and C library have the calls, with the layout that is wired here."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    libc = ctypes.CDLL(None)
    return hasattr(libc, "recvmmsg") and hasattr(libc, "sendmmsg")


class Batch:
    """The buffers of one non-blocking UDP socket, which stays the caller's.

    After `receive()` slot k holds a question of `lengths()[k]` octets at `questions[k * QUESTION:]`. An answer is
    written to `answers[k * ANSWER:]` with its length in `sizes[k]`, gets the question's ID by `copy_ids`, and goes out
    with `send`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._v6 = sock.family == socket.AF_INET6
        self._everywhere = sock.getsockname()[0] in ("0.0.0.0", "::")
        if self._everywhere:
            _tell_address_asked(sock, self._v6)
        self._fd = ctypes.c_int(sock.fileno())
        self._slots = ctypes.c_uint(SLOTS)
        self._flags = ctypes.c_int(socket.MSG_DONTWAIT)
        self.questions = mmap.mmap(-1, SLOTS * QUESTION)
        self.answers = mmap.mmap(-1, SLOTS * ANSWER)
        self._addresses = mmap.mmap(-1, SLOTS * ADDRESS)
        self._control = mmap.mmap(-1, SLOTS * _CONTROL)
        headers, vectors = ([mmap.mmap(-1, SLOTS * ctypes.sizeof(kind)) for _ in "io"] for kind in (_Header, _Vector))
        self._received, self._sent = ((_Header * SLOTS).from_buffer(part) for part in headers)
        self._in, self._out = ((_Vector * SLOTS).from_buffer(part) for part in vectors)
        self._wire()
        self.sizes = memoryview(vectors[1]).cast("L")[1::2]
        self._asked = memoryview(self.questions).cast("H")[:: QUESTION // 2]
        self._answered = memoryview(self.answers).cast("H")[:: ANSWER // 2]
        self._words = memoryview(headers[0]).cast("I")
        self._hosts = memoryview(self._addresses)
        self._hosts = self._hosts.cast("Q") if self._v6 else self._hosts.cast("I")
        self._interfaces = memoryview(self._control).cast("I")[4 :: _CONTROL // 4]
        self._receive, self._send = _calls()

    def receive(self) -> int:
        """Fetch what is there: how many; 0 or less if none."""
        got: int = self._receive(self._fd, self._received, self._slots, self._flags, None)
        if self._everywhere and not self._v6:
            self._interfaces[:] = _ANY_INTERFACE  # the routing table decides, as for any other packet
        return got

    def lengths(self, count: int) -> list[int]:
        """Of each question; a longer one than fits has `LONGEST`, and lacks its end."""
        return self._words[_LENGTHS][:count].tolist()

    def copy_ids(self) -> None:
        """Give every answer the ID of its question."""
        self._answered[:] = self._asked

    def hosts(self, count: int) -> list[int] | list[tuple[int, int]]:
        """A number (IPv4) or a pair of them (IPv6) for each peer's address, only to be compared."""
        if self._v6:
            return list(zip(self._hosts[1::4][:count].tolist(), self._hosts[2::4][:count].tolist(), strict=True))
        return self._hosts[1::8][:count].tolist()

    def peer(self, slot: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Who sent the question in a slot, as the socket module writes it."""
        raw = self._addresses[slot * ADDRESS : (slot + 1) * ADDRESS]
        (port,) = struct.unpack_from("!H", raw, 2)
        if not self._v6:
            return socket.inet_ntoa(raw[4:8]), port
        (flow,) = struct.unpack_from("!I", raw, 4)
        (scope,) = struct.unpack_from("=I", raw, 24)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port, flow, scope

    def way_back(self, slot: int) -> list[tuple[int, int, bytes]]:
        """What a later answer has to be sent with so that it leaves from the address asked: sendmsg's `ancdata`."""
        if not self._everywhere:
            return []
        raw = self._control[slot * _CONTROL : (slot + 1) * _CONTROL]
        length, level, kind = struct.unpack_from("@Nii", raw)  # cmsg(3)
        return [(level, kind, raw[16:length])]

    def send(self, first: int, end: int) -> None:
        """Send the answers of these slots."""
        while first < end:
            sent = int(self._send(self._fd, ctypes.byref(self._sent, first * _SIZE), end - first, self._flags))
            if sent > 0:
                first += sent
            elif ctypes.get_errno() in _PASSING:
                return
            else:
                first += 1  # this peer cannot be reached

    def _wire(self) -> None:
        questions, answers, addresses, control = (
            ctypes.addressof(ctypes.c_char.from_buffer(part))
            for part in (self.questions, self.answers, self._addresses, self._control)
        )
        for slot in range(SLOTS):
            self._in[slot] = _Vector(questions + slot * QUESTION, LONGEST)
            self._out[slot] = _Vector(answers + slot * ANSWER, 0)
            for header, vector in (
                (self._received[slot].message, self._in),
                (self._sent[slot].message, self._out),
            ):
                header.name = addresses + slot * ADDRESS
                header.name_length = 28 if self._v6 else 16
                header.vectors = ctypes.addressof(vector) + slot * ctypes.sizeof(_Vector)
                header.vector_count = 1
                if self._everywhere:
                    header.control = control + slot * _CONTROL
                    header.control_length = 40 if self._v6 else 32


def _tell_address_asked(sock: socket.socket, v6: bool) -> None:
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, _RECVPKTINFO6, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _PKTINFO4, 1)


def _calls() -> tuple[Callable[..., int], Callable[..., int]]:
    # Without giving the interpreter away: neither call waits, and to get it back from a busy thread would take longer.
    libc = ctypes.PyDLL(None, use_errno=True)
    receive, send = libc.recvmmsg, libc.sendmmsg
    receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    return receive, send
