"""Notifications to systemd, over a socket of its kind."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.daemon.systemd import SystemdNotifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def told(manager: socket.socket) -> list[str]:
    messages = []
    try:
        while True:
            messages.append(manager.recv(4096).decode())
    except BlockingIOError:
        return messages


def test_notifications_to_systemd(manager: socket.socket) -> None:
    notify = SystemdNotifier({"NOTIFY_SOCKET": manager.getsockname()})
    notify.ready("worker w1")
    notify.reloading()
    notify.stopping()
    ready, reloading, stopping = told(manager)
    assert (ready, stopping) == ("READY=1\nSTATUS=worker w1", "STOPPING=1")
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0vipmesh-test-notify")
        SystemdNotifier({"NOTIFY_SOCKET": "@vipmesh-test-notify"}).stopping()
        assert listening.recv(100) == b"STOPPING=1"


def test_a_missing_socket_is_ignored_and_a_closed_one_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    SystemdNotifier({}).ready("worker w1")
    assert caplog.text == ""
    SystemdNotifier({"NOTIFY_SOCKET": "/nonexistent/notify"}).stopping()
    assert "the service manager at /nonexistent/notify cannot be notified" in caplog.text


@pytest.mark.looptime
async def test_the_watchdog_is_notified_twice_per_interval_unless_the_loop_hangs(manager: socket.socket) -> None:
    alive = True
    notify = SystemdNotifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "10000000"})
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(notify.keep_alive(lambda: alive))
        await asyncio.sleep(19)
        assert told(manager) == ["WATCHDOG=1"] * 4
        alive = False
        await asyncio.sleep(20)
        assert told(manager) == []
        task.cancel()


@pytest.mark.parametrize("given", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}])
async def test_without_a_watchdog_no_keepalive_is_sent(given: dict[str, str]) -> None:
    async with asyncio.timeout(1):
        await SystemdNotifier(given).keep_alive(lambda: True)
