"""The running daemon for the bench: `vipmesh run` as users start it, with a compose file of probed services.

The data plane is the user-space one, on a pool of loopback: it needs no privilege, and beside the name server the
process does everything that a worker does. Every service has two endpoints with an HTTP probe each, once in 5 s.
"""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dns_peers import Server, answering, free_port

from harness import running, scratch

_HERE = Path(__file__).parent
_SOCKETS = 16384
"""Each service has a listening socket."""


@contextmanager
def daemon(cpu: int, services: int) -> Iterator[Server]:
    """A worker that has all its services and has probed all of them; what it probes runs on any other core."""
    _allow_sockets()
    port = free_port()
    with scratch() as directory, _instances() as backend:
        compose, settings = directory / "compose.yaml", directory / "vipmesh.toml"
        compose.write_text(_compose(services, backend))
        settings.write_text(
            f'[node]\nname = "w1"\naddress = "127.0.0.1"\n[vip]\npool = "127.112.0.0/16"\n'
            f'[dataplane]\ndriver = "userspace"\n[source.compose]\nfiles = ["{compose}"]\nendpoints = 100000\n'
            f'[dns]\nlisten = ["127.0.0.1:{port}"]\ndomain = "bench.test"\nresolver = "off"\n'
            f'upstream = ["127.0.0.1:9"]\n'
            f'[store]\nurl = "sqlite:///{directory}/store.db"\n[admin]\nlisten = "unix://{directory}/admin.sock"\n'
        )
        command = [sys.executable, "-m", "mesh", "run", "-c", str(settings)]
        with running(*command, cpu=cpu, cwd=_HERE.parent, quiet=True) as process:
            for number in (0, services // 2, services - 1):
                answering(process.pid, port, f"tasks.n{number}.bench.test", None)
            yield process.pid, port


@contextmanager
def _instances() -> Iterator[int]:
    """The port of what stands for all instances."""
    command = [sys.executable, str(_HERE / "dns_daemon.py"), "probes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


def _compose(services: int, backend: int) -> str:
    lines = ["services:"]
    for number in range(services):
        octets = f"{1 + (number >> 8)}.{number & 255}"
        lines += [
            f"  n{number}:",
            "    labels:",
            f"      mesh.routing.port_8080: n{number}.bench.test",
            "      mesh.probe.url: http://container:8080/",
            f'    x-endpoints: ["127.1.{octets}:{backend}", "127.2.{octets}:{backend}"]',
        ]
    return "\n".join(lines) + "\n"


def _allow_sockets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _SOCKETS:
        most = _SOCKETS if hard == resource.RLIM_INFINITY else min(_SOCKETS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
