"""The IPVS socket against a scripted kernel: what it sends, the order of replies, and when it gives up."""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop
from typing_extensions import override

from mesh.dataplane import DataPlaneError
from mesh.dataplane.ipvs.socket import BATCH, IpvsSocket
from mesh.dataplane.netlink import NetlinkAck, NetlinkRequest, pack_message

HEADER = struct.Struct("=IHHII")
FAMILY, ERROR, DONE = 28, 2, 3
INTERRUPTED = 0x10
CHANGE = NetlinkRequest(3, b"abcd")
LIST = NetlinkRequest(4, dump=True)


def answer(kind: int, sequence: int, payload: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(16 + len(payload), kind, flags, sequence, 0) + payload


def ack(sequence: int, error: int = 0, kind: int = ERROR, flags: int = 0) -> bytes:
    return answer(kind, sequence, struct.pack("=i", -error), flags)


def reply(sequence: int, body: bytes) -> bytes:
    return answer(FAMILY, sequence, struct.pack("=BBH", 1, 1, 0) + body)


class Kernel:
    """The other end: hands each datagram's sequence numbers to the script, sends what that returns."""

    def __init__(self) -> None:
        self.script: Callable[[list[int]], list[bytes]] = lambda sequences: [ack(number) for number in sequences]
        self.datagrams: list[list[int]] = []
        self.opened = 0
        self._ends: list[socket.socket] = []

    def open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setblocking(False)
        self.opened += 1
        self._ends += [ours, theirs]
        asyncio.get_running_loop().add_reader(theirs, self._answer, theirs)
        return ours

    def close(self) -> None:
        for end in self._ends:
            if end.fileno() >= 0:  # the socket under test closes its own end
                asyncio.get_running_loop().remove_reader(end)
            end.close()

    def _answer(self, end: socket.socket) -> None:
        datagram = end.recv(1 << 16)
        if not datagram:
            asyncio.get_running_loop().remove_reader(end)
            return
        sequences, offset = [], 0
        while offset < len(datagram):
            length, _, _, sequence, _ = HEADER.unpack_from(datagram, offset)
            sequences.append(sequence)
            offset += length
        self.datagrams.append(sequences)
        for part in self.script(sequences):
            end.send(part)


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
async def ipvs(kernel: Kernel) -> AsyncIterator[IpvsSocket]:
    ipvs = IpvsSocket(FAMILY, patience=0.2, open_socket=kernel.open)
    yield ipvs
    ipvs.close()


async def test_many_changes_go_in_batches_each_after_the_last_is_answered(kernel: Kernel, ipvs: IpvsSocket) -> None:
    acks = await ipvs.execute([CHANGE] * 70)

    assert [len(datagram) for datagram in kernel.datagrams] == [BATCH, BATCH, 6]
    assert [ack.sequence for ack in acks] == list(range(1, 71))
    assert not any(ack.error for ack in acks)


async def test_no_changes_send_nothing(kernel: Kernel, ipvs: IpvsSocket) -> None:
    assert await ipvs.execute([]) == []
    assert kernel.datagrams == []


async def test_each_result_finds_its_change(kernel: Kernel, ipvs: IpvsSocket) -> None:
    kernel.script = lambda numbers: [ack(number, errno.EEXIST if number == 2 else 0) for number in reversed(numbers)]

    assert await ipvs.execute([CHANGE] * 3) == [NetlinkAck(1), NetlinkAck(2, errno.EEXIST), NetlinkAck(3)]


async def test_replies_to_other_requests_are_ignored(kernel: Kernel, ipvs: IpvsSocket) -> None:
    kernel.script = lambda numbers: [ack(900, errno.EIO), reply(901, b"late"), *(ack(number) for number in numbers)]

    assert await ipvs.execute([CHANGE]) == [NetlinkAck(1)]


async def test_a_list_may_come_in_many_datagrams(kernel: Kernel, ipvs: IpvsSocket) -> None:
    kernel.script = lambda numbers: [
        reply(numbers[0], b"one!") + reply(numbers[0], b"two!"),
        reply(900, b"late"),
        reply(numbers[0], b"more") + ack(numbers[0], kind=DONE),
    ]

    assert await ipvs.dump(LIST, bytes.decode) == ["one!", "two!", "more"]


async def test_a_list_that_changed_meanwhile_is_read_again(kernel: Kernel, ipvs: IpvsSocket) -> None:
    def script(numbers: list[int]) -> list[bytes]:
        first = len(kernel.datagrams) == 1
        return [reply(numbers[0], b"part"), ack(numbers[0], kind=DONE, flags=INTERRUPTED if first else 0)]

    kernel.script = script

    assert await ipvs.dump(LIST, bytes) == [b"part"]
    assert kernel.datagrams == [[1], [2]]


async def test_a_list_that_changes_all_the_time_is_given_up(kernel: Kernel, ipvs: IpvsSocket) -> None:
    kernel.script = lambda numbers: [ack(numbers[0], kind=DONE, flags=INTERRUPTED)]

    with pytest.raises(DataPlaneError, match="changed all the time"):
        await ipvs.dump(LIST, bytes)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(lambda numbers: [], "did not answer about IPVS within 0.2 s", id="silence"),
        pytest.param(lambda numbers: [b"noise"], "is not understood", id="noise"),
        pytest.param(lambda numbers: [ack(numbers[0], errno.EPERM)], r"CAP_NET_ADMIN \(compose: ", id="no rights"),
    ],
)
async def test_a_general_failure_fails_changes_and_lists_and_leaves_the_socket_usable(
    kernel: Kernel, ipvs: IpvsSocket, script: Callable[[list[int]], list[bytes]], words: str
) -> None:
    honest, kernel.script = kernel.script, script
    with pytest.raises(DataPlaneError, match=words):
        await ipvs.execute([CHANGE])
    with pytest.raises(DataPlaneError, match=words):
        await ipvs.dump(LIST, bytes)

    kernel.script = honest
    assert [result.error for result in await ipvs.execute([CHANGE])] == [0]


async def test_an_unloaded_ipvs_module_is_reported(kernel: Kernel, ipvs: IpvsSocket) -> None:
    kernel.script = lambda numbers: [ack(numbers[0], errno.ENOENT)]

    with pytest.raises(DataPlaneError, match="`modprobe ip_vs`"):
        await ipvs.dump(LIST, bytes)


async def test_an_abandoned_list_does_not_block_the_next(kernel: Kernel, ipvs: IpvsSocket) -> None:
    asked = asyncio.Event()

    def half(numbers: list[int]) -> list[bytes]:
        asked.set()
        return [reply(numbers[0], b"half")]

    honest, kernel.script = kernel.script, half
    async with asyncio.TaskGroup() as tasks:
        abandoned = tasks.create_task(ipvs.dump(LIST, bytes))
        await asked.wait()
        abandoned.cancel()
    kernel.script = honest

    assert await ipvs.dump(LIST, bytes) == []
    assert kernel.opened == 2


async def test_calls_of_several_tasks_take_turns(kernel: Kernel, ipvs: IpvsSocket) -> None:
    kernel.script = lambda numbers: [reply(number, b"%03d!" % number) + ack(number) for number in numbers]

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ipvs.dump(LIST, bytes)) for _ in range(3)]

    assert [task.result() for task in asked] == [[b"001!"], [b"002!"], [b"003!"]]


async def test_replies_dropped_by_the_kernel_are_reported(kernel: Kernel) -> None:
    class Overflowing(socket.socket):
        @override
        def recv(self, size: int, flags: int = 0) -> bytes:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    def overflow() -> socket.socket:
        return Overflowing(fileno=kernel.open().detach())

    ipvs = IpvsSocket(FAMILY, patience=1, open_socket=overflow)
    with pytest.raises(DataPlaneError, match=r"dropped answers about IPVS \(ENOBUFS\)"):
        await ipvs.execute([CHANGE])
    ipvs.close()


def test_it_waits_for_answers_under_uvloop_too() -> None:
    async def main() -> list[NetlinkAck]:
        kernel = Kernel()
        ipvs = IpvsSocket(FAMILY, patience=5, open_socket=kernel.open)
        acks = await ipvs.execute([CHANGE] * (BATCH + 1))
        ipvs.close()
        kernel.close()
        return acks

    assert [ack.error for ack in uvloop.run(main())] == [0] * (BATCH + 1)


def test_the_batch_fits_a_datagram() -> None:
    assert BATCH * len(pack_message(NetlinkRequest(1, bytes(300)), FAMILY, 1)) < 1 << 16
