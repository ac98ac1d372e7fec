"""Network namespaces for tests and benches that move addresses, routes or IPVS: nothing they do is seen outside.

A socket belongs to the namespace its thread was in when it was made, and stays there; threads and children inherit.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_OURS = Path("/proc/thread-self/ns/net")
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace that lives as long as something holds it: this, a socket, a process.

    To make one raises `PermissionError` without CAP_SYS_ADMIN.
    """

    def __init__(self) -> None:
        with _returning():
            _call("unshare", _CLONE_NEWNET)
            self._fd = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """What `ip link ... netns` takes."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in it; await nothing inside that other tasks could share."""
        with _returning():
            _call("setns", self._fd, _CLONE_NEWNET)
            yield

    def ip(self, *commands: str) -> None:
        """Run `ip` commands in it."""
        with self.entered():
            run_ip(*commands)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def run_ip(*commands: str) -> None:
    """Run `ip` commands in this thread's namespace."""
    run_command("ip", "-batch", "-", given="\n".join(commands))


def run_command(*command: str, given: str = "") -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


@contextmanager
def _returning() -> Iterator[None]:
    home = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _call("setns", home, _CLONE_NEWNET)
        os.close(home)


def _call(name: str, *args: int) -> None:
    if getattr(_libc, name)(*args):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
