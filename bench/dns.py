"""The name server beside dnsmasq: own names over UDP, a zone of 2,000 names.

The load comes from one process that keeps a window of questions in flight on a few sockets. It is written in Python
and slower than either server, so queries per second are its limit, not theirs; what is compared is the CPU time that a
server spends on a question, which is what bounds it.
"""

import getpass
import os
import random
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dnslib import QTYPE, DNSRecord

from harness import Row, cores, cpu_seconds, main, need, ratio, running, scratch

NAMES = 2000
SOCKETS = 4
WINDOW = 64


def questions() -> list[bytes]:
    """90 of 100 existing names, 5 AAAA without data, 5 names that do not exist; always the same ones."""
    pick = random.Random(1)
    asked = []
    for number in range(20_000):
        name, kind = f"n{pick.randrange(NAMES)}.bench.test", "A"
        if number % 20 == 0:
            kind = "AAAA"
        elif number % 20 == 1:
            name = f"x{pick.randrange(10**9)}.bench.test"
        packet = bytes(DNSRecord.question(name, kind).pack())
        asked.append(packet)
    return asked


def blast(port: int, packets: Sequence[bytes], seconds: float) -> int:
    """Ask in a closed loop; how many answers came."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
    poll = select.epoll()
    by_number = {}
    try:
        for each in sockets:
            each.connect(("127.0.0.1", port))
            each.setblocking(False)
            poll.register(each, select.EPOLLIN)
            by_number[each.fileno()] = each
        return _closed_loop(poll, by_number, packets, seconds)
    finally:
        poll.close()
        for each in sockets:
            each.close()


def _closed_loop(
    poll: select.epoll, sockets: dict[int, socket.socket], packets: Sequence[bytes], seconds: float
) -> int:
    at = answers = 0
    for each in sockets.values():
        for _ in range(WINDOW):
            each.send(packets[at % len(packets)])
            at += 1
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ready = poll.poll(0.2)
        if not ready:  # all of the window was lost: ask again
            for each in sockets.values():
                each.send(packets[at % len(packets)])
                at += 1
        for number, _ in ready:
            each = sockets[number]
            for _ in range(WINDOW):
                try:
                    each.recv(2048)
                except BlockingIOError:
                    break
                answers += 1
                each.send(packets[at % len(packets)])
                at += 1
    return answers


@contextmanager
def ours(cpu: int) -> Iterator[tuple[int, int]]:
    """(pid, port) of our server."""
    port = _free_port()
    here = Path(__file__).parent
    with running(sys.executable, str(here / "dns_server.py"), str(port), str(NAMES), cpu=cpu) as process:
        _await_answer(port)
        yield process.pid, port


@contextmanager
def dnsmasq(cpu: int, directory: Path) -> Iterator[tuple[int, int]]:
    """(pid, port) of dnsmasq with the same names."""
    port = _free_port()
    hosts = "".join(f"10.112.{n // 250}.{n % 250 + 1} n{n}.bench.test\n" for n in range(NAMES))
    (directory / "hosts").write_text(hosts)
    options = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        f"--user={getpass.getuser()}",
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        f"--addn-hosts={directory}/hosts",
        "--local=/bench.test/",
        "--local-ttl=5",
        "--pid-file",
        "--log-facility=/dev/null",
    ]
    with running(need("dnsmasq", "dnsmasq-base"), *options, cpu=cpu) as process:
        _await_answer(port)
        yield process.pid, port


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _await_answer(port: int) -> None:
    question = DNSRecord.question("n1.bench.test", QTYPE[1])
    for _ in range(100):
        try:
            question.send("127.0.0.1", port, timeout=0.1)
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"no answer on port {port}")


def run(quick: bool) -> list[Row]:
    """Both servers stay up; the rounds ask one of them at a time, in random order."""
    rounds, seconds = (5, 1.0) if quick else (15, 3.0)
    server_cpu, load_cpu = cores()
    packets = questions()
    os.sched_setaffinity(0, {load_cpu})
    with scratch() as directory, ours(server_cpu) as us, dnsmasq(server_cpu, directory) as them:
        found: dict[tuple[int, int], list[tuple[float, float]]] = {us: [], them: []}
        for each in (us, them):
            blast(each[1], packets, 0.5)  # both warm
        for _ in range(rounds):
            for each in random.sample([us, them], 2):
                before = cpu_seconds(each[0])
                answers = blast(each[1], packets, seconds)
                used = cpu_seconds(each[0]) - before
                found[each].append((answers / seconds, used / answers * 1e6))
    return [_row(found[us], found[them])]


def _row(us: Sequence[tuple[float, float]], them: Sequence[tuple[float, float]]) -> Row:
    per_core, spread = ratio([1 / cost for _, cost in us], [1 / cost for _, cost in them])
    return Row(
        "own names, UDP: queries per CPU second beside dnsmasq",
        _words(us),
        _words(them),
        per_core,
        spread,
        ">= 1.0",
        per_core >= 1.0,
    )


def _words(rounds: Sequence[tuple[float, float]]) -> str:
    rate, cost = (statistics.median(column) for column in zip(*rounds, strict=True))
    return f"{cost:.1f} us CPU/query ({rate / 1000:.1f}k queries/s asked)"


if __name__ == "__main__":
    sys.exit(main(run, "Queries per CPU second of the name server, beside dnsmasq."))
