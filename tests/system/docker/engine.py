"""A Docker engine for the tests: in a network namespace, with its own data, ended by its PID.

Nothing of it is seen outside: its bridges and packet filter rules are in the namespace, its socket and its data in a
directory that goes with it. There is no registry; the one image is made of busybox.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.netns import Namespace, run_command

IMAGE = "mesh-test:1"
PROGRAMS = ("dockerd", "docker", "containerd", "runc", "iptables")
BUSYBOX = Path("/bin/busybox")
_APPLETS = (
    "sh",
    "sleep",
    "httpd",
    "cat",
    "echo",
    "kill",
    "test",
    "rm",
    "touch",
    "ps",
    "nc",
    "wget",
    "nslookup",
    "true",
    "false",
)
_OF_SWARM = frozenset({"ingress", "docker_gwbridge"})
"""Networks that the engine makes for a swarm; they go with its data."""
_SUBNET = "172.29.0.1/24"

HOST, CLIENT = "192.0.2.1", "192.0.2.2"
"""The addresses of the host of the engine, and of another host."""


def missing() -> str | None:
    """What a test with an engine lacks here, and what to install; None: nothing."""
    if os.geteuid() != 0:
        return "a Docker engine of the tests' own needs root"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if lacking:
        return f"needs {', '.join(lacking)}: apt-get install --no-install-recommends docker.io"
    done = subprocess.run([BUSYBOX, "true"], check=False) if BUSYBOX.exists() else None
    if done is None or b"ld-linux" in BUSYBOX.read_bytes()[:4096]:
        return "needs a static busybox: apt-get install busybox-static"
    return None


class Engine:
    """A running engine."""

    def __init__(self, namespace: Namespace, *, subnet: str = _SUBNET, host: str | None = None) -> None:
        """`subnet`: of its own bridge. `host`: the name of its host, with which it has a resolver that refuses, too."""
        self.namespace = namespace
        self._subnet = subnet
        self._host = host
        self.directory = Path(tempfile.mkdtemp(prefix="vipmesh-docker-"))
        self.socket = self.directory / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def inside(self) -> tuple[str, ...]:
        """What goes before a command that shall run in the engine's namespace, with nothing in between."""
        return "nsenter", f"--net={self.namespace.path}"

    def start(self, *options: str) -> None:
        """Start it, again if it was ended, with the containers that it had; returns when it answers."""
        (self.directory / "docker.pid").unlink(missing_ok=True)
        with self.namespace.entered(), (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._as_host(),
                    "dockerd",
                    *("--data-root", self.directory / "data", "--exec-root", self.directory / "exec"),
                    *("-H", self.url, "--pidfile", self.directory / "docker.pid"),
                    *("--bip", self._subnet, "--log-level", "warn"),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": _path()},
                start_new_session=True,
            )
        deadline = time.monotonic() + 40
        while subprocess.run(self.command("version"), capture_output=True, check=False, timeout=20).returncode:
            ended = self._process.poll() is not None or time.monotonic() > deadline
            assert not ended, (self.directory / "log").read_text()
            time.sleep(0.1)

    def _as_host(self) -> tuple[str, ...]:
        """Return what goes before its command for a host name of its own; the process stays the same one.

        An engine of a swarm asks the registry at each start of a task: a resolver that does not answer costs 30 s.
        """
        if self._host is None:
            return ()
        resolver = self.directory / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        script = f'hostname {self._host} && mount --bind {resolver} /etc/resolv.conf && exec "$@"'
        return "unshare", "--uts", "--mount", "--propagation", "slave", "sh", "-c", script, "sh"

    def end(self) -> None:
        """End it and wait for its end; containers end with it unless it was started with --live-restore."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def pause(self) -> None:
        """It hangs, until `go_on`."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Remove its containers, end it, and remove its data. What a failed test made of it is no hindrance."""
        try:
            self.remove_all()
            self.end()
        finally:
            self._clear()

    def _clear(self) -> None:
        for pid in self._left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.directory}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.namespace.close()

    def _left(self) -> Iterator[int]:
        """What still runs with this engine's own directory among its arguments, and the children of that."""
        ours, children = set(), {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                children[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if str(self.directory).encode() in (process / "cmdline").read_bytes():
                    ours.add(int(process.name))
        yield from (pid for pid, parent in children.items() if pid in ours or parent in ours)

    def command(self, *arguments: str) -> list[str]:
        return ["docker", "-H", self.url, *arguments]

    def docker(self, *arguments: str, given: bytes = b"", seconds: float = 50) -> str:
        """What a docker command prints; it must succeed."""
        done = subprocess.run(
            self.command(*arguments), input=given, capture_output=True, check=False, timeout=seconds, env=_environment()
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout.decode().strip()

    async def adocker(self, *arguments: str) -> str:
        """The same, while the event loop goes on."""
        return await asyncio.to_thread(self.docker, *arguments)

    def run(
        self,
        name: str,
        *options: str,
        labels: Mapping[str, str] = MappingProxyType({}),
        command: Sequence[str] = ("httpd", "-f", "-p", "80", "-h", "/www"),
    ) -> str:
        """Run a container of the image, by default a web server on port 80; its id."""
        flags = [flag for key, value in labels.items() for flag in ("--label", f"{key}={value}")]
        return self.docker("run", "-d", "--name", name, *flags, *options, IMAGE, *command)

    def namespace_output(self, *command: str) -> str:
        """What a command prints that runs in the engine's namespace; it must succeed."""
        with self.namespace.entered():
            return run_command(*command)

    def remove_all(self) -> None:
        """Remove every container and every network that a test made."""
        if containers := self.docker("ps", "-aq").split():
            self.docker("rm", "-f", "-v", *containers)
        names = self.docker("network", "ls", "--format", "{{.Name}}", "--filter", "type=custom").split()
        networks = [name for name in names if name not in _OF_SWARM]
        if networks:
            self.docker("network", "rm", *networks)

    def image_archive(self, image: str) -> bytes:
        """Return an image with its ID, for another engine: `docker load`. An import would give it another ID."""
        done = subprocess.run(self.command("save", image), capture_output=True, check=False, timeout=100)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def import_image(self) -> None:
        self.docker("import", "-", IMAGE, given=root_archive())


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


def _environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    return {**clean, "HOME": "/nonexistent", "PATH": _path()}


def root_archive() -> bytes:
    """A root file system: busybox, a user, a page that says who answers, and one that takes its time."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name: str, content: bytes, mode: int = 0o644) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, BytesIO(content))

        for name in ("bin", "etc", "tmp", "www", "www/cgi-bin"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        add("bin/busybox", BUSYBOX.read_bytes(), 0o755)
        for applet in _APPLETS:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        add("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        add("www/index.html", b"up\n")
        add("www/cgi-bin/who", _cgi("cat /etc/hostname"), 0o755)
        add("www/cgi-bin/slow", _cgi("for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.2; done; echo end"), 0o755)
    return out.getvalue()


def _cgi(script: str) -> bytes:
    return f"#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n{script}\n".encode()


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine with the image of the tests, in a namespace of its own. Skips where there can be none."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    namespace = Namespace()
    namespace.ip("link set lo up")
    engine = Engine(namespace)
    try:
        engine.start()
        engine.import_image()
        yield engine
    finally:
        engine.close()
