"""Load for name servers: a window of outstanding queries per socket, sent and received in batches.

All queries are encoded in buffers before the clock starts, so that Python does next to nothing per query and the server
is the limit. The ID is the query's place in the ring, which gives its start time.

Where the server must be the limit the load never sleeps: waking a process on another core costs the sender interrupts,
which is no work of a name server.
"""

import ctypes
import itertools
import mmap
import socket
import statistics
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

SLOTS = 256
SIZE = 2048


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
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
    _fields_ = (("message", _Message), ("length", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Load:
    """The answers of a run."""

    answers: int = 0
    lost: int = 0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    """Seconds from sending to receiving, of a sample of queries."""
    gap: float = 0.0
    """The longest time in which no answer came, in seconds."""

    def quantile(self, part: float) -> float:
        """In microseconds."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e6 if ordered else 0.0

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds

    @property
    def median(self) -> float:
        """In microseconds."""
        return statistics.median(self.times) * 1e6 if self.times else 0.0


class Ring:
    """Questions, wired for sendmmsg; their IDs are replaced by their places."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        assert len(packets) <= 65536
        self.count = len(packets)
        self._octets = ctypes.create_string_buffer(
            b"".join(struct.pack("=H", place) + packet[2:] for place, packet in enumerate(packets))
        )
        self._vectors = (_Vector * self.count)()
        self.headers = (_Header * self.count)()
        at = ctypes.addressof(self._octets)
        for place, packet in enumerate(packets):
            self._vectors[place] = _Vector(at, len(packet))
            at += len(packet)
            message = self.headers[place].message
            message.vectors = ctypes.addressof(self._vectors) + place * ctypes.sizeof(_Vector)
            message.vector_count = 1
        self.sent = [0.0] * self.count
        self.at = 0

    def send(self, fd: int, count: int) -> int:
        """Send the next questions: how many were taken."""
        first = self.at
        count = min(count, self.count - first, SLOTS)
        taken = _libc.sendmmsg(fd, ctypes.byref(self.headers, first * ctypes.sizeof(_Header)), count, 0x40)
        if taken <= 0:
            return 0
        self.sent[first : first + taken] = [time.perf_counter()] * taken
        self.at = (first + taken) % self.count
        return int(taken)


class Sink:
    """Buffers for answers."""

    def __init__(self) -> None:
        self._octets = mmap.mmap(-1, SLOTS * SIZE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._octets))
        self._vectors = (_Vector * SLOTS)()
        self._headers = (_Header * SLOTS)()
        for slot in range(SLOTS):
            self._vectors[slot] = _Vector(base + slot * SIZE, SIZE)
            message = self._headers[slot].message
            message.vectors = ctypes.addressof(self._vectors) + slot * ctypes.sizeof(_Vector)
            message.vector_count = 1
        self._ids = memoryview(self._octets).cast("H")[:: SIZE // 2]

    def receive(self, fd: int) -> int:
        """How many answers were there."""
        return max(0, int(_libc.recvmmsg(fd, self._headers, SLOTS, 0x40, None)))

    def places(self, count: int) -> list[int]:
        """Which questions they answer."""
        return self._ids[:count].tolist()


def blast(port: int, packets: Sequence[bytes], seconds: float, *, sockets: int = 4, window: int = 64) -> Load:
    """Ask as fast as the server answers: each socket has `window` questions in flight."""
    return _Run(port, packets, sockets).closed(seconds, window)


def pace(port: int, packets: Sequence[bytes], seconds: float, rate: float, *, sockets: int = 4) -> Load:
    """Ask at a rate, whatever the server does; its answers' times are what is wanted."""
    return _Run(port, packets, sockets).open(seconds, rate)


def converse(port: int, packets: Sequence[bytes], seconds: float, *, connections: int = 4, window: int = 64) -> Load:
    """Over TCP: on each connection two windows of questions, and the next one whenever one has been answered.

    A connection never runs dry, so that neither Nagle's algorithm nor a delayed acknowledgement is what is measured.
    """
    load = Load()
    streams = [_Stream(port) for _ in range(connections)]
    groups = [packets[at : at + window] for at in range(0, len(packets) - window, window)]
    written = [b"".join(struct.pack("!H", len(packet)) + packet for packet in group) for group in groups]
    turns = itertools.cycle(written)
    begun = time.perf_counter()
    for each in streams * 2:
        each.send(next(turns))
    while (now := time.perf_counter()) < begun + seconds:
        for each in streams:
            load.answers += each.receive()
            while each.answered >= window:
                each.answered -= window
                each.send(next(turns))
    load.seconds = now - begun
    for each in streams:
        each.close()
    return load


class _Stream:
    """One connection that never waits."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._unsent = self._rest = b""
        self.answered = 0
        """Since the caller last took some away."""

    def send(self, data: bytes) -> None:
        """Now, or with the next answers."""
        self._unsent += data
        with suppress(BlockingIOError):
            self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def receive(self) -> int:
        """How many answers have come."""
        if self._unsent:
            self.send(b"")
        try:
            rest = self._rest + self._socket.recv(65536)
        except BlockingIOError:
            return 0
        at, count, end = 0, 0, len(rest)
        while end - at >= 2 and end - at - 2 >= (length := rest[at] << 8 | rest[at + 1]):
            at += 2 + length
            count += 1
        self._rest = rest[at:]
        self.answered += count
        return count

    def close(self) -> None:
        self._socket.close()


class _Run:
    def __init__(self, port: int, packets: Sequence[bytes], sockets: int) -> None:
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(sockets)]
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            each.connect(("127.0.0.1", port))
            each.setblocking(False)
        self._ring = Ring(packets)
        self._sink = Sink()
        self._load = Load()
        self._last = 0.0

    def closed(self, seconds: float, window: int) -> Load:
        fds = [each.fileno() for each in self._sockets]
        flying = dict.fromkeys(fds, 0)
        begun = self._last = time.perf_counter()
        end = begun + seconds
        while (now := time.perf_counter()) < end:
            for fd in fds:
                flying[fd] -= self._take(fd)
                room = window - flying[fd]
                if room >= window // 4:
                    flying[fd] += self._ring.send(fd, room)
            if now - self._last > 0.2:
                self._load.lost += sum(flying.values())
                flying = dict.fromkeys(fds, 0)
                self._last = now
        self._load.seconds = now - begun
        return self._done()

    def open(self, seconds: float, rate: float) -> Load:
        fds = [each.fileno() for each in self._sockets]
        begun = self._last = time.perf_counter()
        asked = 0
        while (now := time.perf_counter()) < begun + seconds:
            due = int((now - begun) * rate) - asked
            if due >= 1:
                asked += self._ring.send(fds[asked % len(fds)], due)
            if not sum(self._take(fd) for fd in fds):
                time.sleep(0.00005)
        self._load.seconds = now - begun
        while time.perf_counter() < begun + seconds + 0.2 and self._load.answers < asked:
            for fd in fds:
                self._take(fd)
        self._load.lost = asked - self._load.answers
        return self._done()

    def _take(self, fd: int) -> int:
        count = self._sink.receive(fd)
        if count:
            now = time.perf_counter()
            load, sent = self._load, self._ring.sent
            load.answers += count
            load.gap = max(load.gap, now - self._last)
            self._last = now
            load.times.extend([now - sent[place] for place in self._sink.places(count)[::8]])
        return count

    def _done(self) -> Load:
        for each in self._sockets:
            each.close()
        return self._load
