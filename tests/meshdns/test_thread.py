"""The name server in a thread of its own, independent of the event loop of the process."""

import asyncio
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshdns.server import NameServer, NameServerError
from meshdns.thread import NICE_INCREMENT, ThreadedServer
from meshdns.zone import Zone
from tests.meshdns.test_udp import address_in, ask, question

ZONE = Zone.build({"web.test": ["10.112.0.7"]}, ["test"])


def made() -> ThreadedServer:
    return ThreadedServer(lambda: NameServer([("127.0.0.1", 0)], ZONE))


async def test_it_answers_takes_a_new_zone_counts_and_stops() -> None:
    server = made()
    await server.start()
    host, port = server.addresses[0]
    assert address_in(await ask(host, port)) == "10.112.0.7"
    server.replace(Zone.build({"web.test": ["10.112.0.8"]}, ["test"]))
    async with asyncio.timeout(3):
        while address_in(await ask(host, port)) != "10.112.0.8":
            await asyncio.sleep(0)
    assert server.counters.answered >= 2
    await server.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dns")]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind((host, port))
    await server.stop()


async def test_it_answers_while_the_event_loop_is_busy() -> None:
    server = made()
    await server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(server.addresses[0])
        end = time.monotonic() + 0.3
        answered = 0
        while time.monotonic() < end:  # the loop of this thread does not run in all that time
            client.send(question())
            assert address_in(client.recv(512)) == "10.112.0.7"
            answered += 1
    assert answered > 10
    await server.stop()


def nice_of(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def may_go_ahead() -> bool:
    """Tried in a thread, which takes it away with it."""

    def attempt() -> bool:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice_of(threading.get_native_id()) - 1)
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(attempt).result()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_its_thread_has_a_higher_priority_where_permitted() -> None:
    server = made()
    await server.start()
    (thread,) = (each for each in threading.enumerate() if each.name.startswith("dns"))
    assert thread.native_id is not None
    usual = nice_of(threading.get_native_id())
    assert nice_of(thread.native_id) == (max(-20, usual - NICE_INCREMENT) if may_go_ahead() else usual)
    await server.stop()


async def test_a_failed_start_raises_and_leaves_no_thread() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = taken.getsockname()
        server = ThreadedServer(lambda: NameServer([address], ZONE))
        with pytest.raises(NameServerError, match="the port is taken"):
            await server.start()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dns")]
