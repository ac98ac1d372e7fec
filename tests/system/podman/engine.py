"""Podman for the tests: its Docker-compatible socket, in a network namespace, with its own data, ended by its PID.

The same `docker` program drives it. Its containers do not depend on the process that serves the socket.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

from typing_extensions import override

from tests.system.docker.engine import Engine
from tests.system.docker.engine import missing as missing_for_docker

_ADDRESSES = Path("/var/lib/cni/networks")
"""Where the network plugins note which addresses are taken, in a folder for each network."""
_CONTAINERS_CONF = """
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{directory}/tmp"
static_dir = "{directory}/data/libpod"
[network]
network_backend = "cni"
network_config_dir = "{directory}/cni"
cni_plugin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
default_subnet = "172.28.0.0/24"
default_network = "{network}"
"""
_STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{directory}/data"
runroot = "{directory}/run"
"""


def missing() -> str | None:
    """What a test with Podman lacks here, and what to install; None: nothing."""
    if shutil.which("podman") is None:
        return "needs podman: apt-get install --no-install-recommends podman"
    return missing_for_docker()


class PodmanEngine(Engine):
    """Podman's service for Docker clients."""

    @override
    def start(self, *options: str) -> None:
        for name in ("cni", "data", "run", "tmp"):
            (self.directory / name).mkdir(exist_ok=True)
        conf = _CONTAINERS_CONF.format(directory=self.directory, network=self.directory.name)
        (self.directory / "containers.conf").write_text(conf)
        (self.directory / "storage.conf").write_text(_STORAGE_CONF.format(directory=self.directory))
        self.socket.unlink(missing_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside, "podman", "system", "service", "-t", "0", *options, self.url],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + 40
        while subprocess.run(self.command("version"), capture_output=True, check=False, timeout=20).returncode:
            ended = self._process.poll() is not None or time.monotonic() > deadline
            assert not ended, (self.directory / "log").read_text()
            time.sleep(0.1)

    @override
    def remove_all(self) -> None:
        # A container whose network another one shares goes after that one.
        assert 0 in (self.podman("rm", "--all", "--force", "--time", "0") for _ in range(8))
        assert self.podman("network", "prune", "--force") == 0

    @override
    def _clear(self) -> None:
        super()._clear()
        for folder in _ADDRESSES.glob(f"{self.directory.name}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def network(self, name: str) -> str:
        """A name of a network that is this engine's alone, since the plugins' notes are the host's."""
        return f"{self.directory.name}-{name}"

    def podman(self, *arguments: str) -> int:
        """Run the podman program on the same containers; its exit status."""
        command = [*self.inside, "podman", *arguments]
        return subprocess.run(command, capture_output=True, check=False, timeout=50, env=self._environment).returncode

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "CONTAINERS_CONF": str(Path(self.directory, "containers.conf")),
            "CONTAINERS_STORAGE_CONF": str(Path(self.directory, "storage.conf")),
        }
