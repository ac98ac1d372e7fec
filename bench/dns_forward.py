"""Forwarding beside dnsmasq and unbound: foreign names, answered from the cache, and forwarded to an upstream each
time.

All forward to the same upstream, which answers at once, on the core of the load. The measure is the CPU time per query
of a forwarder. Names that are forwarded each time have a TTL of 0, so that no server caches them.
"""

import getpass
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from dns_load import Load, blast
from dns_peers import Server, answering, free_port
from dns_rounds import compare, per_core
from dnslib import DNSRecord

from harness import Row, need, running, scratch

NAMES = 2000
WINDOW = 32
"""Questions in flight on each of four sockets: within what all of them let one client have under way."""
GOALS = {("c", "dnsmasq"): 1.3, ("c", "unbound"): 1.0, ("x", "dnsmasq"): 0.7, ("x", "unbound"): 0.5}
WORDS = {"c": "from the cache", "x": "asked each time"}
_HERE = Path(__file__).parent


def questions(letter: str, count: int) -> list[bytes]:
    """Always the same ones, in random order."""
    pick = random.Random(1)
    names = [f"{letter}{number}.bench.test" for number in range(NAMES)]
    return [bytes(DNSRecord.question(pick.choice(names)).pack()) for _ in range(count)]


def forwarded(rounds: int, seconds: float, cpu: int) -> list[Row]:
    """Both kinds of questions."""
    rows = []
    with ExitStack() as stack:
        asked = stack.enter_context(upstream())
        peers = {"ours": ours, "dnsmasq": dnsmasq, "unbound": unbound}
        servers = {
            name: stack.enter_context(peer(cpu, asked, stack.enter_context(scratch()))) for name, peer in peers.items()
        }
        for letter, words in WORDS.items():
            packets = questions(letter, 50_000)
            found = compare(servers, rounds, partial(_blast, packets, seconds))
            rows += [
                per_core(f"names of others, {words}:", found["ours"], peer, found[peer], GOALS[letter, peer])
                for peer in ("dnsmasq", "unbound")
            ]
    return rows


def _blast(packets: list[bytes], seconds: float, server: Server) -> Load:
    return blast(server[1], packets, seconds, window=WINDOW)


@contextmanager
def upstream() -> Iterator[int]:
    """Its port; on the core of the load."""
    port = free_port()
    with running(sys.executable, str(_HERE / "dns_upstream.py"), str(port)) as process:
        _answering(process.pid, port)
        yield port


@contextmanager
def ours(cpu: int, asked: int, directory: Path) -> Iterator[Server]:
    """The name server alone."""
    port = free_port()
    with running(sys.executable, str(_HERE / "dns_forwarder.py"), str(port), str(asked), cpu=cpu) as process:
        yield _answering(process.pid, port)


@contextmanager
def dnsmasq(cpu: int, asked: int, directory: Path) -> Iterator[Server]:
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
        yield _answering(process.pid, port)


@contextmanager
def unbound(cpu: int, asked: int, directory: Path) -> Iterator[Server]:
    """Forwarding everything, without DNSSEC; room for all questions of the load."""
    port = free_port()
    config = directory / "unbound.conf"
    config.write_text(
        f'server:\n  username: ""\n  chroot: ""\n  directory: "{directory}"\n  pidfile: "{directory}/unbound.pid"\n'
        f"  interface: 127.0.0.1\n  port: {port}\n  num-threads: 1\n  do-daemonize: no\n  use-syslog: no\n"
        f'  so-rcvbuf: 4m\n  so-sndbuf: 4m\n  module-config: "iterator"\n  access-control: 127.0.0.0/8 allow\n'
        f"  do-not-query-localhost: no\n  outgoing-range: 2048\n  num-queries-per-thread: 1024\n"
        f'  local-zone: "test." nodefault\nforward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{asked}\n'
        f"remote-control:\n  control-enable: no\n"
    )
    with running(need("unbound", "unbound"), "-d", "-c", str(config), cpu=cpu, quiet=True) as process:
        yield _answering(process.pid, port)


def _answering(pid: int, port: int) -> Server:
    return answering(pid, port, "c1.bench.test", "192.0.2.1")
