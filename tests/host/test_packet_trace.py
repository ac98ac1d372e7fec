"""The trace of a test's own packets, in a network namespace."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.host.packet_trace import TABLE, trace_packets
from mesh.model.service import Transport
from mesh.util.nft import NftError
from tests.netns import private_network, run_command


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with private_network():
        yield


def tables() -> str:
    return run_command("nft", "list", "tables")


def send(sock: socket.socket) -> int:
    sock.sendto(b"x", ("127.0.0.1", 9))
    return int(sock.getsockname()[1])


async def test_packets_of_watched_ports_are_shown_and_no_others() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as ours, socket.socket(type=socket.SOCK_DGRAM) as other:
        ours.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        async with trace_packets() as trace:
            await trace.watch(Transport.UDP, [ours.getsockname()[1]])
            watched, unwatched = send(ours), send(other)
            await trace.flush()
            text = "\n".join(trace.lines)
    assert f"udp sport {watched} udp dport 9 " in text
    assert f"udp sport {unwatched} udp dport 9 " not in text


async def test_the_table_is_removed_at_the_end_also_after_an_error() -> None:
    async def fail() -> None:
        async with trace_packets():
            assert TABLE in tables()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert TABLE not in tables()


async def test_the_kernel_removes_the_table_when_its_process_is_killed() -> None:
    async with trace_packets() as trace:
        os.kill(trace._rules.pid, signal.SIGKILL)  # noqa: SLF001 (only a kill from outside proves it)
        await trace._rules.wait()  # noqa: SLF001
        assert TABLE not in tables()
        with pytest.raises(NftError):
            async with asyncio.timeout(40):
                await trace.watch(Transport.UDP, [4711])


async def test_two_traces_at_once_do_not_disturb_one_another() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        async with trace_packets() as first, trace_packets():
            await first.watch(Transport.UDP, [sock.getsockname()[1]])
            port = send(sock)
            await first.flush()
    assert any(f"udp sport {port} udp dport 9 " in line for line in first.lines)


async def test_a_command_that_is_refused_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.host.packet_trace._PRIORITY", "nonsense")
    with pytest.raises(NftError, match="nft refuses"):
        async with asyncio.timeout(5), trace_packets():
            pass


async def test_a_note_of_nft_about_the_terminal_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image without a database of terminals."""
    nft = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    program = tmp_path / "nft"
    program.write_text(f'#!/bin/sh\necho "Cannot read termcap database;" >&2\nexec {nft} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with trace_packets() as trace:
        await trace.flush()


async def test_without_nft_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.host.packet_trace.ADMIN_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NftError, match="apt-get install nftables"):
        async with trace_packets():
            pytest.fail("there is no nft")
