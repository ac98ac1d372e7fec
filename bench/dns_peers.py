"""The other name servers, each with the same zone of `NAMES` names: `nNNN.bench.test`, one A record, TTL 5."""

import getpass
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from dnslib import QTYPE, DNSRecord

from harness import need, running

Server = tuple[int, int]
"""Process id and port of 127.0.0.1."""


def address(number: int) -> str:
    """The address of a name."""
    return f"10.{112 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


@contextmanager
def ours(cpu: int, names: int, *options: str) -> Iterator[Server]:
    """The name server alone."""
    port = free_port()
    script = str(Path(__file__).parent / "dns_server.py")
    with running(sys.executable, script, str(port), str(names), *options, cpu=cpu) as process:
        yield answering(process.pid, port)


@contextmanager
def changing(cpu: int, services: int, changes: int) -> Iterator[Server]:
    """A worker over a source and a data plane in memory, once all its services are there and probed."""
    port = free_port()
    script = str(Path(__file__).parent / "dns_daemon.py")
    with running(sys.executable, script, str(port), str(services), str(changes), cpu=cpu) as process:
        pid, port = answering(process.pid, port, f"tasks.n{services - 1}.bench.test", None)
        yield pid, port


@contextmanager
def dnsmasq(cpu: int, names: int, directory: Path) -> Iterator[Server]:
    """Names from a hosts file; no log, no user switch."""
    port = free_port()
    hosts = directory / "hosts"
    hosts.write_text("".join(f"{address(n)} n{n}.bench.test\n" for n in range(names)))
    options = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        f"--user={getpass.getuser()}",
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        f"--addn-hosts={hosts}",
        "--local=/bench.test/",
        "--local-ttl=5",
        "--pid-file",
        "--log-facility=/dev/null",
    ]
    with running(need("dnsmasq", "dnsmasq-base"), *options, cpu=cpu) as process:
        yield answering(process.pid, port)


@contextmanager
def knot(cpu: int, names: int, directory: Path) -> Iterator[Server]:
    """One worker each for UDP and TCP."""
    port = free_port()
    _zone_file(directory, names)
    config = directory / "knot.conf"
    config.write_text(
        f"server:\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
        f"  rundir: {directory}\n  tcp-max-clients: 100\n"
        f"log:\n  - target: stderr\n    any: error\ndatabase:\n  storage: {directory}\n"
        f"zone:\n  - domain: bench.test\n    storage: {directory}\n    file: zone\n    zonefile-sync: -1\n"
    )
    with running(need("knotd", "knot"), "-c", str(config), cpu=cpu) as process:
        yield answering(process.pid, port)


@contextmanager
def nsd(cpu: int, names: int, directory: Path) -> Iterator[Server]:
    """One server process below the one that is started."""
    port = free_port()
    _zone_file(directory, names)
    config = directory / "nsd.conf"
    config.write_text(
        f'server:\n  ip-address: 127.0.0.1\n  port: {port}\n  server-count: 1\n  username: ""\n'
        f'  zonesdir: {directory}\n  database: ""\n  pidfile: {directory}/nsd.pid\n  xfrdfile: {directory}/xfrd\n'
        f"  zonelistfile: {directory}/list\n  rrl-ratelimit: 0\n  tcp-query-count: 0\n"
        f"remote-control:\n  control-enable: no\nzone:\n  name: bench.test\n  zonefile: zone\n"
    )
    with running(need("nsd", "nsd"), "-d", "-c", str(config), cpu=cpu, quiet=True) as process:
        yield answering(process.pid, port)


@contextmanager
def unbound(cpu: int, names: int, directory: Path) -> Iterator[Server]:
    """The names as local data."""
    port = free_port()
    config = directory / "unbound.conf"
    data = "".join(f'  local-data: "n{n}.bench.test. 5 IN A {address(n)}"\n' for n in range(names))
    config.write_text(
        f'server:\n  username: ""\n  chroot: ""\n  directory: "{directory}"\n  pidfile: "{directory}/unbound.pid"\n'
        f"  interface: 127.0.0.1\n  port: {port}\n  num-threads: 1\n  do-daemonize: no\n  use-syslog: no\n"
        f'  so-rcvbuf: 4m\n  so-sndbuf: 4m\n  module-config: "iterator"\n  access-control: 127.0.0.0/8 allow\n'
        f'  local-zone: "bench.test." static\n{data}'
        f'  local-data: "bench.test. 5 IN SOA ns.bench.test. admin.bench.test. 1 3600 600 86400 5"\n'
        f"remote-control:\n  control-enable: no\n"
    )
    with running(need("unbound", "unbound"), "-d", "-c", str(config), cpu=cpu, quiet=True) as process:
        yield answering(process.pid, port)


PEERS: dict[str, Callable[[int, int, Path], AbstractContextManager[Server]]] = {
    "NSD": nsd,
    "Knot": knot,
    "unbound": unbound,
    "dnsmasq": dnsmasq,
}


def free_port() -> int:
    """A port of 127.0.0.1 that is free for UDP and TCP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return int(tcp.getsockname()[1])


def _zone_file(directory: Path, names: int) -> None:
    records = "".join(f"n{n} IN A {address(n)}\n" for n in range(names))
    (directory / "zone").write_text(
        "$ORIGIN bench.test.\n$TTL 5\n@ IN SOA ns admin 1 3600 600 86400 5\n@ IN NS ns\nns IN A 127.0.0.1\n" + records
    )


def answering(pid: int, port: int, name: str = "n1.bench.test", expected: str | None = address(1)) -> Server:
    """Once it answers, and answers right (None: anything)."""
    for _ in range(600):
        try:
            said = DNSRecord.parse(DNSRecord.question(name, QTYPE[1]).send("127.0.0.1", port, timeout=0.1))
        except OSError:
            time.sleep(0.05)
        else:
            if said.rr and expected in (None, str(said.rr[0].rdata)):
                return pid, port
            time.sleep(0.05)
    raise RuntimeError(f"no right answer on port {port}")
