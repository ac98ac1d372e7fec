"""Forwarding beside dnsmasq: names of others, answered from the cache, and asked of an upstream each time.

Both forward to the same upstream, which answers at once, on the core of the load. What counts is the CPU time that a
forwarder spends on a question. One that is asked each time has a TTL of 0, so that neither keeps it.
"""

import getpass
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dns_load import blast
from dns_peers import Server
from dnslib import DNSRecord

from harness import Row, cores, cpu_seconds, main, need, ratio, running, scratch

NAMES = 2000
WINDOW = 32
"""Questions in flight on each of four sockets: within what both let one client have under way."""


def questions(letter: str, count: int) -> list[bytes]:
    """Always the same ones, in random order."""
    pick = random.Random(1)
    names = [f"{letter}{number}.bench.test" for number in range(NAMES)]
    return [bytes(DNSRecord.question(pick.choice(names)).pack()) for _ in range(count)]


@contextmanager
def upstream(cpu: int) -> Iterator[int]:
    """Its port."""
    port = free_port()
    with running(sys.executable, str(Path(__file__).parent / "dns_upstream.py"), str(port), cpu=cpu):
        _await_answer(port)
        yield port


@contextmanager
def ours(cpu: int, asked: int) -> Iterator[Server]:
    """The name server alone."""
    port = free_port()
    script = str(Path(__file__).parent / "dns_forwarder.py")
    with running(sys.executable, script, str(port), str(asked), cpu=cpu) as process:
        _await_answer(port)
        yield process.pid, port


@contextmanager
def dnsmasq(cpu: int, asked: int) -> Iterator[Server]:
    """A cache that holds all names, and room for all questions of the load."""
    port = free_port()
    options = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        f"--user={getpass.getuser()}",
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        f"--server=127.0.0.1#{asked}",
        "--cache-size=10000",
        "--dns-forward-max=1024",
        "--pid-file",
        "--log-facility=/dev/null",
    ]
    with running(need("dnsmasq", "dnsmasq-base"), *options, cpu=cpu) as process:
        _await_answer(port)
        yield process.pid, port


def free_port() -> int:
    """A port of 127.0.0.1 that is free for UDP and TCP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return int(tcp.getsockname()[1])


def _await_answer(port: int) -> None:
    for _ in range(200):
        try:
            said = DNSRecord.parse(DNSRecord.question("c1.bench.test").send("127.0.0.1", port, timeout=0.1))
        except OSError:
            time.sleep(0.05)
        else:
            if [str(record.rdata) for record in said.rr] == ["192.0.2.1"]:
                return
            time.sleep(0.05)
    raise RuntimeError(f"no right answer on port {port}")


def run(quick: bool) -> list[Row]:
    """Both stay up; the rounds ask one of them at a time, in random order."""
    rounds, seconds = (5, 1.0) if quick else (15, 3.0)
    server_cpu, load_cpu = cores()
    os.sched_setaffinity(0, {load_cpu})
    rows = []
    with scratch(), upstream(load_cpu) as asked, ours(server_cpu, asked) as us, dnsmasq(server_cpu, asked) as them:
        for letter, words, goal in (("c", "from the cache", 1.0), ("x", "asked each time", 0.5)):
            packets = questions(letter, 50_000)
            found: dict[Server, list[tuple[float, float]]] = {us: [], them: []}
            for each in (us, them):
                blast(each[1], packets, 0.5, window=WINDOW)  # warm
            for _ in range(rounds):
                for each in random.sample([us, them], 2):
                    before = cpu_seconds(each[0])
                    load = blast(each[1], packets, seconds, window=WINDOW)
                    used = cpu_seconds(each[0]) - before
                    found[each].append((load.rate, used / load.answers * 1e6))
            rows.append(_row(words, found[us], found[them], goal))
    return rows


def _row(words: str, us: Sequence[tuple[float, float]], them: Sequence[tuple[float, float]], goal: float) -> Row:
    per_core, spread = ratio([1 / cost for _, cost in us], [1 / cost for _, cost in them])
    return Row(
        f"names of others, {words}: queries per CPU second beside dnsmasq",
        _words(us),
        _words(them),
        per_core,
        spread,
        f">= {goal}",
        per_core >= goal,
    )


def _words(rounds: Sequence[tuple[float, float]]) -> str:
    rate, cost = (statistics.median(column) for column in zip(*rounds, strict=True))
    return f"{cost:.1f} us CPU/query ({rate / 1000:.1f}k queries/s asked)"


if __name__ == "__main__":
    sys.exit(main(run, "Queries per CPU second of the name server as a forwarder, beside dnsmasq."))
