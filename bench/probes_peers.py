"""HAProxy as the endpoints of the bench, and as a peer that checks them."""

import csv
import io
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from harness import need, running

PORT = 18080
_ENDPOINTS = """
global
    nbthread 1
    maxconn 5000
    stats socket {directory}/endpoints.sock
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend endpoints
    bind 0.0.0.0:{port}
    http-request return status 200 content-type text/plain string ok
"""
_CHECKER = """
global
    nbthread 1
    maxconn 100
    stats socket {directory}/checker.sock
defaults
    mode {mode}
    timeout connect 2s
    timeout client 5s
    timeout server 5s
backend checked
    {option}
    default-server inter {interval}s fall 3 rise 2
    timeout check 2s
{servers}
"""


class Endpoints:
    """One server at every address."""

    def __init__(self, path: str) -> None:
        self._path = path

    def asked(self) -> int:
        """How many requests it has answered so far."""
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(self._path)
            stats.sendall(b"show stat\n")
            text = b"".join(iter(lambda: stats.recv(65536), b"")).decode()
        rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
        return next(int(row["req_tot"]) for row in rows if row["svname"] == "FRONTEND")


@contextmanager
def endpoints(directory: Path, cpu: int) -> Iterator[Endpoints]:
    """On `PORT` of all addresses of this network namespace."""
    (directory / "endpoints.cfg").write_text(_ENDPOINTS.format(directory=directory, port=PORT))
    command = [need("haproxy", "haproxy"), "-db", "-q", "-f", str(directory / "endpoints.cfg")]
    with running(*command, cpu=cpu):
        _wait_for(directory / "endpoints.sock")
        yield Endpoints(str(directory / "endpoints.sock"))


@contextmanager
def httpchk(directory: Path, cpu: int, count: int, interval: float) -> Iterator[int]:
    """HAProxy checking `count` of them; its process id."""
    first = ip_address("127.1.0.1")
    servers = "\n".join(f"    server s{n} {first + n}:{PORT} check" for n in range(count))
    text = _CHECKER.format(
        directory=directory, mode="http", option="option httpchk GET /health", interval=f"{interval:g}", servers=servers
    )
    (directory / "checker.cfg").write_text(text)
    command = [need("haproxy", "haproxy"), "-db", "-q", "-f", str(directory / "checker.cfg")]
    with running(*command, cpu=cpu) as process:
        _wait_for(directory / "checker.sock")
        yield process.pid


@contextmanager
def watching(directory: Path, places: dict[str, tuple[str, int]], interval: float) -> Iterator[subprocess.Popen[bytes]]:
    """HAProxy checking these by TCP; on standard error it says who is DOWN and UP."""
    servers = "\n".join(f"    server {name} {host}:{port} check" for name, (host, port) in places.items())
    text = _CHECKER.format(directory=directory, mode="tcp", option="", interval=f"{interval:g}", servers=servers)
    (directory / "watching.cfg").write_text(text)
    command = [need("haproxy", "haproxy"), "-db", "-f", str(directory / "watching.cfg")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    raise RuntimeError(f"{path} does not appear")
