"""The user-space data plane beside HAProxy in TCP mode with one thread, before the same two real servers.

One client process opens connections one after the other on a few tasks, or transfers bulk over one connection. The
proxies have a core to themselves; client and real servers share the other one and are the limit of the rates, so the
measure is the CPU time of the proxy per connection and per megabyte. The client resets its connections and both proxies
pass that on (HAProxy by `option nolinger`): with sockets in TIME_WAIT the search for a free port would dominate.
"""

import asyncio
import os
import random
import socket
import statistics
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from harness import Row, cores, cpu_seconds, main, need, ratio, running, scratch

HERE = Path(__file__).parent
ADDRESS = "127.112.0.1"
MEGABYTE = 1 << 20
TASKS = 2
"""Connections under way. More of them make the client slower and measure the kernel's wake-ups, not the proxy."""

HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    option nolinger
    timeout connect 3s
    timeout client 60s
    timeout server 60s
listen bench
    bind {address}:{port}
    balance roundrobin
{servers}
"""


@dataclass(frozen=True)
class Proxy:
    """One of the two."""

    pid: int
    port: int


@dataclass(frozen=True)
class Round:
    """The measurements of one proxy in one round."""

    connections: float
    """A second."""
    per_connection: float
    """CPU microseconds of the proxy."""
    megabytes: float
    """A second."""
    per_megabyte: float
    """CPU microseconds of the proxy."""


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextmanager
def ours(cpu: int, reals: Sequence[int]) -> Iterator[Proxy]:
    """Our proxy."""
    port = free_port()
    script = str(HERE / "userspace_server.py")
    with running(sys.executable, script, ADDRESS, str(port), *map(str, reals), cpu=cpu) as process:
        await_listener(ADDRESS, port)
        yield Proxy(process.pid, port)


@contextmanager
def haproxy(cpu: int, reals: Sequence[int], directory: Path) -> Iterator[Proxy]:
    """The peer."""
    port = free_port()
    servers = "\n".join(f"    server s{real} 127.0.0.1:{real}" for real in reals)
    (directory / "haproxy.cfg").write_text(HAPROXY.format(address=ADDRESS, port=port, servers=servers))
    command = [need("haproxy", "haproxy"), "-db", "-q", "-f", str(directory / "haproxy.cfg")]
    with running(*command, cpu=cpu) as process:
        await_listener(ADDRESS, port)
        yield Proxy(process.pid, port)


def await_listener(address: str, port: int) -> None:
    """Return once a process accepts connections there."""
    for _ in range(100):
        try:
            socket.create_connection((address, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nobody listens on {address}:{port}")


async def connect_often(port: int, seconds: float) -> int:
    """Open, ask for one byte, reset; how many did."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    done = 0

    async def one_after_the_other() -> None:
        nonlocal done
        while loop.time() < end:
            with socket.socket() as client:
                client.setblocking(False)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT
                await loop.sock_connect(client, (ADDRESS, port))
                await loop.sock_sendall(client, b"1\n")
                done += len(await loop.sock_recv(client, 16))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(TASKS):
            tasks.create_task(one_after_the_other(), name="client")
    return done


async def draw_bulk(port: int, seconds: float) -> float:
    """Megabytes drawn over one connection."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    received = 0
    buffer = bytearray(MEGABYTE)
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, (ADDRESS, port))
        while loop.time() < end:
            await loop.sock_sendall(client, f"{8 * MEGABYTE}\n".encode())
            left = 8 * MEGABYTE
            while left:
                count = await loop.sock_recv_into(client, buffer)
                left -= count
                received += count
    return received / MEGABYTE


def measure(proxy: Proxy, seconds: float) -> Round:
    """One round of one proxy."""
    began, used = time.monotonic(), cpu_seconds(proxy.pid)
    connections = uvloop.run(connect_often(proxy.port, seconds))
    between, used_between = time.monotonic(), cpu_seconds(proxy.pid)
    megabytes = uvloop.run(draw_bulk(proxy.port, seconds))
    took, used_last = time.monotonic() - between, cpu_seconds(proxy.pid)
    return Round(
        connections / (between - began),
        (used_between - used) / connections * 1e6,
        megabytes / took,
        (used_last - used_between) / megabytes * 1e6,
    )


def run(quick: bool) -> list[Row]:
    """Both proxies stay up; the rounds use one of them at a time, in random order."""
    rounds, seconds = (4, 1.5) if quick else (12, 3.0)
    proxy_cpu, load_cpu = cores()
    os.sched_setaffinity(0, {load_cpu})
    reals = [free_port(), free_port()]
    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        for real in reals:
            stack.enter_context(running(sys.executable, str(HERE / "userspace_backend.py"), str(real), cpu=load_cpu))
            await_listener("127.0.0.1", real)
        us = stack.enter_context(ours(proxy_cpu, reals))
        them = stack.enter_context(haproxy(proxy_cpu, reals, directory))
        found: dict[Proxy, list[Round]] = {us: [], them: []}
        for _ in range(rounds):
            for proxy in random.sample([us, them], 2):
                found[proxy].append(measure(proxy, seconds))
    return rows(found[us], found[them])


def rows(us: Sequence[Round], them: Sequence[Round]) -> list[Row]:
    """The table: connections and bulk, each by CPU time."""
    new, new_spread = ratio([1 / r.per_connection for r in us], [1 / r.per_connection for r in them])
    bulk, bulk_spread = ratio([1 / r.per_megabyte for r in us], [1 / r.per_megabyte for r in them])

    def words(rounds: Sequence[Round]) -> tuple[str, str]:
        rate, cost = (
            statistics.median(c) for c in zip(*[(r.connections, r.per_connection) for r in rounds], strict=True)
        )
        speed, price = (
            statistics.median(c) for c in zip(*[(r.megabytes, r.per_megabyte) for r in rounds], strict=True)
        )
        return f"{cost:.0f} us CPU ({rate:.0f}/s asked)", f"{price:.0f} us CPU ({speed:.0f} MB/s)"

    (our_new, our_bulk), (their_new, their_bulk) = words(us), words(them)
    return [
        Row(
            "user-space proxy: connections per CPU second beside HAProxy",
            our_new,
            their_new,
            new,
            new_spread,
            ">= 0.5",
            new >= 0.5,
        ),
        Row(
            "user-space proxy: MB per CPU second beside HAProxy",
            our_bulk,
            their_bulk,
            bulk,
            bulk_spread,
            ">= 0.5",
            bulk >= 0.5,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(run, "CPU cost of the user-space data plane, beside HAProxy."))
