"""Batched UDP: recvmmsg(2) and sendmmsg(2) over buffers whose headers are set up once.

Receiving one datagram at a time in Python costs a system call, a bytes object, an address tuple and a turn of the event
loop, and answering it costs as much again. Here one call fetches up to `SLOTS` datagrams into fixed buffers; a response
is written into the other buffer of its slot, and one call sends all of them. The headers for receiving and sending
point to the same address buffer, so the peer's address is reused without Python ever reading it.

On a socket bound to all addresses the kernel reports the address that was queried (IP_PKTINFO, ip(7) and ipv6(7)). The
same control bytes are sent back, so that the response leaves from that address.

Responses over IPv4 are never fragmented on their way (RFC 9715), which also spares the kernel an IP ID for each. If the
path is known to be too narrow for a response, the client is asked to retry over TCP.
"""

import ctypes
import errno
import mmap
import socket
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from operator import getitem

from meshdns.authoritative import truncate_answer
from meshdns.mmsg import IoVector, MmsgHeader, load_calls
from meshdns.response_block import BLOCK_SIZE, LENGTH_SIZE, decode_block

SLOTS = 64
"""Datagrams per call; values from 16 to 256 show no measurable difference."""
MAX_QUERY_BYTES = 1024
"""Maximum bytes of a query; a longer one is cut off by the kernel and then answered as malformed."""
MAX_ANSWER_BYTES = 1280
"""Maximum bytes of a response."""
QUERY_STRIDE = MAX_QUERY_BYTES + 64
"""Bytes from one slot to the next: an odd number of cache lines, so that slots do not compete for the same cache sets.
"""

ADDRESS_STRIDE = 32
"""Bytes per slot for a socket address, aligned: 16 are used for IPv4 (ip(7)), 28 for IPv6 (ipv6(7))."""
_CONTROL = 64
_PKTINFO4, _RECVPKTINFO6 = 8, 49  # linux/in.h IP_PKTINFO, linux/in6.h IPV6_RECVPKTINFO
_MTU_DISCOVER, _DO = 10, 2  # linux/in.h IP_MTU_DISCOVER, IP_PMTUDISC_DO
_PASSING = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}
"""Errors that mean the kernel has no room now: the rest of the batch is dropped, as the network might do. Any other
error concerns one datagram only.
"""


_SIZE = ctypes.sizeof(MmsgHeader)
_LENGTHS = slice(MmsgHeader.length.offset // 4, None, _SIZE // 4)
_ANY_INTERFACE = memoryview(bytes(4 * SLOTS)).cast("I")


class _SlotKeys(dict[int, slice]):
    """The slice of the buffer that holds a slot's query without its ID, by the length of the query."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, length: int) -> slice:
        made = self[length] = slice(self._start + 2, self._start + length)
        return made


_KEYS = tuple(_SlotKeys(slot * QUERY_STRIDE) for slot in range(SLOTS))


class UdpBatch:
    """The buffers of one non-blocking UDP socket. The socket stays the caller's.

    After `receive()` slot k holds query k; `keys` returns all of them without their IDs. `answer` takes a block for
    each slot, with any ID, and `send` sends the responses of a range of slots.
    """

    # Over 12 attributes: the kernel's structures point at these buffers for as long as the socket lives, and each view
    # over them is made once, since making it for every batch would cost more than the batch.

    def __init__(self, sock: socket.socket) -> None:
        self._v6 = sock.family == socket.AF_INET6
        self._everywhere = sock.getsockname()[0] in ("0.0.0.0", "::")
        """Whether the socket is bound to all addresses, and needs control data to answer from the queried one."""
        if self._everywhere:
            _tell_address_asked(sock, self._v6)
        if not self._v6:
            sock.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _DO)
        self._fd = ctypes.c_int(sock.fileno())
        self._slots = ctypes.c_uint(SLOTS)
        self._flags = ctypes.c_int(socket.MSG_DONTWAIT)
        self.questions = mmap.mmap(-1, SLOTS * QUERY_STRIDE)
        """The received queries, `QUERY_STRIDE` bytes per slot."""
        self.answers = mmap.mmap(-1, SLOTS * BLOCK_SIZE)
        """The responses that fit into a block, `BLOCK_SIZE` bytes per slot."""
        self._long = mmap.mmap(-1, SLOTS * MAX_ANSWER_BYTES)
        """The responses that do not fit into a block, `MAX_ANSWER_BYTES` bytes per slot."""
        self._addresses = mmap.mmap(-1, SLOTS * ADDRESS_STRIDE)
        self._control = mmap.mmap(-1, SLOTS * _CONTROL)
        # One array of each kind for receiving and one for sending.
        headers, vectors = (
            [mmap.mmap(-1, SLOTS * ctypes.sizeof(kind)) for _ in range(2)] for kind in (MmsgHeader, IoVector)
        )
        self._received, self._sent = ((MmsgHeader * SLOTS).from_buffer(part) for part in headers)
        self._in, self._out = ((IoVector * SLOTS).from_buffer(part) for part in vectors)
        self._long_place = 0
        self._wire()
        places = memoryview(vectors[1]).cast("L")
        self._places, self.sizes = places[0::2], places[1::2]
        self._usual_places = self._places.tolist()
        self._moved: list[int] = []
        """Slots whose response lies in `_long`."""
        # Strided views over the buffers: lengths and IDs of a whole batch are then copied in one step each.
        self._ends = memoryview(self.answers).cast("L")[BLOCK_SIZE // LENGTH_SIZE - 1 :: BLOCK_SIZE // LENGTH_SIZE]
        self._asked = memoryview(self.questions).cast("H")[:: QUERY_STRIDE // 2]
        self._answered = memoryview(self.answers).cast("H")[:: BLOCK_SIZE // 2]
        self._lengths = memoryview(headers[0]).cast("I")[_LENGTHS]
        self._hosts = memoryview(self._addresses)
        self._hosts = self._hosts.cast("Q") if self._v6 else self._hosts.cast("I")[1::8]
        self._interfaces = memoryview(self._control).cast("I")[4 :: _CONTROL // 4]
        self._receive, self._send = load_calls()

    def receive(self) -> int:
        """Fetch the datagrams that are waiting. Returns how many; 0 or less if there are none."""
        got: int = self._receive(self._fd, self._received, self._slots, self._flags, None)
        if self._everywhere and not self._v6:
            # Clear the interface index in each in_pktinfo: the routing table decides, as for any other packet.
            self._interfaces[:] = _ANY_INTERFACE
        return got

    def keys(self, count: int) -> Iterator[bytes]:
        """Return each query without its ID; a query that was too long lacks its end."""
        return map(self.questions.__getitem__, map(getitem, _KEYS, self._lengths[:count].tolist()))

    def question(self, slot: int) -> bytes:
        """Return one query."""
        start = slot * QUERY_STRIDE
        return self.questions[start : start + self._lengths[slot]]

    def answer(self, blocks: Sequence[bytes]) -> None:
        """Put the responses of the first slots in place, each with the ID of its query."""
        data = b"".join(blocks)
        longer = []
        if len(data) != len(blocks) * BLOCK_SIZE:
            longer = [slot for slot, each in enumerate(blocks) if len(each) != BLOCK_SIZE]
            data = b"".join([each[:BLOCK_SIZE] for each in blocks])
        # The previous batch may have pointed some slots to `_long`.
        for slot in self._moved:
            self._places[slot] = self._usual_places[slot]
        self._moved = longer
        self.answers[: len(data)] = data
        self.sizes[:] = self._ends
        self._answered[:] = self._asked
        # Must follow the strided copies, which wrote a wrong length for these slots.
        for slot in longer:
            self._move(slot, decode_block(blocks[slot]))

    def hosts(self, count: int) -> list[int] | list[tuple[int, int]]:
        """Return the address of each peer as a number (IPv4) or a pair of numbers (IPv6).

        The numbers are good only for comparison.
        """
        if self._v6:
            return list(zip(self._hosts[1::4][:count].tolist(), self._hosts[2::4][:count].tolist(), strict=True))
        return self._hosts[:count].tolist()

    def host(self, slot: int) -> str:
        """Return the sender of the query in a slot, as the socket module writes an address."""
        raw = self._addresses[slot * ADDRESS_STRIDE : (slot + 1) * ADDRESS_STRIDE]
        return _host6(raw[8:24]) if self._v6 else _host(raw[4:8])

    def way_back(self, slot: int) -> bytes:
        """Return what `put` needs to answer the query in a slot later: the peer's address and the control data."""
        address = self._addresses[slot * ADDRESS_STRIDE : (slot + 1) * ADDRESS_STRIDE]
        return address + self._control[slot * _CONTROL : (slot + 1) * _CONTROL] if self._everywhere else address

    def put(self, slot: int, question: bytes, way_back: bytes) -> None:
        """Restore an earlier query of this socket, possibly from another batch, into a slot."""
        self.questions[slot * QUERY_STRIDE : slot * QUERY_STRIDE + len(question)] = question
        self._lengths[slot] = len(question)
        self._addresses[slot * ADDRESS_STRIDE : (slot + 1) * ADDRESS_STRIDE] = way_back[:ADDRESS_STRIDE]
        if self._everywhere:
            self._control[slot * _CONTROL : (slot + 1) * _CONTROL] = way_back[ADDRESS_STRIDE:]

    def send(self, first: int, end: int) -> None:
        """Send the responses of the slots from `first` up to `end`, exclusive.

        Responses that the kernel has no room for, and those to peers that cannot be reached, are dropped.
        """
        while first < end:
            sent = int(self._send(self._fd, ctypes.byref(self._sent, first * _SIZE), end - first, self._flags))
            if sent > 0:
                first += sent
                continue
            error = ctypes.get_errno()
            if error in _PASSING:
                return
            if error != errno.EMSGSIZE or not self._cut(first):
                first += 1  # this peer cannot be reached; the next one may be

    def _move(self, slot: int, said: bytes) -> None:
        """Put a response that is too long for a block in place."""
        place = slot * MAX_ANSWER_BYTES
        self._long[place : place + len(said)] = self.questions[slot * QUERY_STRIDE :][:2] + said[2:]
        self._places[slot] = self._long_place + place
        self.sizes[slot] = len(said)

    def _cut(self, slot: int) -> bool:
        """Replace a response that is too long for the path to its peer by one with TC set.

        Returns whether that made it shorter.
        """
        start = slot * MAX_ANSWER_BYTES if slot in self._moved else slot * BLOCK_SIZE
        said = (self._long if slot in self._moved else self.answers)[start : start + self.sizes[slot]]
        shorter = truncate_answer(self.question(slot), said)
        if len(shorter) >= len(said):
            return False
        self._moved = [*self._moved, slot]
        self._move(slot, shorter)
        return True

    def _wire(self) -> None:
        """Point each slot's headers to the slot's buffers.

        The kernel reads these addresses, so the buffers must never move.
        """
        questions, answers, self._long_place, addresses, control = (
            ctypes.addressof(ctypes.c_char.from_buffer(part))
            for part in (self.questions, self.answers, self._long, self._addresses, self._control)
        )
        for slot in range(SLOTS):
            self._in[slot] = IoVector(questions + slot * QUERY_STRIDE, MAX_QUERY_BYTES)
            self._out[slot] = IoVector(answers + slot * BLOCK_SIZE, 0)
            for header, vector in (
                (self._received[slot].message, self._in),
                (self._sent[slot].message, self._out),
            ):
                header.name = addresses + slot * ADDRESS_STRIDE
                header.name_length = 28 if self._v6 else 16
                header.vectors = ctypes.addressof(vector) + slot * ctypes.sizeof(IoVector)
                header.vector_count = 1
                if self._everywhere:
                    header.control = control + slot * _CONTROL
                    header.control_length = 40 if self._v6 else 32


_host = lru_cache(4096)(socket.inet_ntoa)
_host6 = lru_cache(4096)(partial(socket.inet_ntop, socket.AF_INET6))


def _tell_address_asked(sock: socket.socket, v6: bool) -> None:
    """Make the kernel report the queried address of each datagram as control data."""
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, _RECVPKTINFO6, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _PKTINFO4, 1)
