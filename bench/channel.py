"""A status over the channel between workers beside the same over the unix socket, and what is left of it at rest.

CPU time of the workers' processes, both for the channel: the one that is asked, and the one that it asks. The client, a
third process with one connection that stays open, is the same for both and does not count. At rest, each of two pairs
of workers does nothing: one whose channel was used and has been closed since, and one that never asked.
"""

import http.client
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import override

from harness import Row, cpu_seconds, main, ratio, running, scratch
from mesh.api.channel.https import IDLE_TIMEOUT
from mesh.cli.certs import make_certificates
from mesh.model.credential import CertificateHolder

SERVICES = 100
NAMES = ("w1", "w2")
WORKER = Path(__file__).with_name("channel_worker.py")


class UnixClient(http.client.HTTPConnection):
    """HTTP over a unix socket, on one connection."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    @override
    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))

    def get(self, path: str) -> bytes:
        """The body of an answer, which must be 200."""
        self.request("GET", path)
        answer = self.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body!r}")
        return body


def free_ports() -> list[int]:
    """A free port for each worker."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in NAMES]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def pair(directory: Path) -> Iterator[list[int]]:
    """Two workers that may ask one another; their process ids."""
    directory.mkdir()
    holders = [(CertificateHolder(name, is_worker=True), ["127.0.0.1"]) for name in NAMES]
    make_certificates(directory, holders, datetime.now(UTC), 90)
    ports = free_ports()
    with ExitStack() as stack:
        found = []
        for name, port, other, there in zip(NAMES, ports, reversed(NAMES), reversed(ports), strict=True):
            command = (sys.executable, str(WORKER), name, str(directory), str(port), other, str(there))
            found.append(stack.enter_context(running(*command)).pid)
        deadline = time.monotonic() + 60
        while not all((directory / f"{name}.sock").exists() for name in NAMES):
            if time.monotonic() > deadline:
                raise TimeoutError("the workers do not start")
            time.sleep(0.05)
        yield found


def cost(client: UnixClient, path: str, pids: Sequence[int], times: int) -> float:
    """CPU seconds of one answer."""
    client.get(path)
    before = sum(map(cpu_seconds, pids))
    for _ in range(times):
        client.get(path)
    return (sum(map(cpu_seconds, pids)) - before) / times


def at_rest(pids: Sequence[int], seconds: float) -> float:
    """CPU seconds in a second of nothing."""
    before = sum(map(cpu_seconds, pids))
    time.sleep(seconds)
    return (sum(map(cpu_seconds, pids)) - before) / seconds


def run(quick: bool) -> Sequence[Row]:
    """See above."""
    rounds, times, rest = (5, 50, 5.0) if quick else (15, 200, 30.0)
    with scratch() as directory, pair(directory / "asking") as asking, pair(directory / "silent") as silent:
        with (
            closing(UnixClient(directory / "asking" / "w1.sock")) as near,
            closing(UnixClient(directory / "asking" / "w2.sock")) as far,
        ):
            if len(near.get("/v1/workers/w2/status")) != len(far.get("/v1/status")):
                raise RuntimeError("the channel answers something else")
            channel, direct = [], []
            for _ in range(rounds):
                channel.append(cost(near, "/v1/workers/w2/status", asking, times))
                direct.append(cost(far, "/v1/status", asking, times))
        time.sleep(IDLE_TIMEOUT + 2)
        used, unused = at_rest(asking, rest), at_rest(silent, rest)
    quotient, spread = ratio(channel, direct)
    return [
        Row(
            f"channel: CPU of a status of {SERVICES} services, over the channel beside the unix socket",
            f"{statistics.median(channel) * 1000:.2f} ms",
            f"{statistics.median(direct) * 1000:.2f} ms",
            quotient,
            spread,
            "<= 1.50",
            quotient <= 1.5,
        ),
        Row(
            "channel: CPU of two idle workers, one of which has asked the other before, beside two that have not",
            f"{used * 1e6:.0f} us/s",
            f"{unused * 1e6:.0f} us/s",
            used / max(unused, 1e-9),
            "-",
            "<= 100 us/s more",
            used - unused <= 100e-6,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
