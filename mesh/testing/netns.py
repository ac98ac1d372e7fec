"""Network namespaces for tests and benches that change addresses, routes or IPVS without any effect outside.

A socket belongs to the namespace that its thread was in when it was made, and stays there. Threads and child processes
inherit the namespace (network_namespaces(7)).
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
    """A network namespace, which exists as long as a reference to it: this object, a socket or a process.

    The constructor raises `PermissionError` without CAP_SYS_ADMIN.
    """

    def __init__(self) -> None:
        with _returning():
            _call("unshare", _CLONE_NEWNET)
            self._fd = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """The path of the namespace, as `ip link ... netns` takes it."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread into the namespace and back; await nothing inside, since other tasks would run in it too."""
        with _returning():
            _call("setns", self._fd, _CLONE_NEWNET)
            yield

    def ip(self, *commands: str) -> None:
        """Run `ip` commands in the namespace."""
        with self.entered():
            run_ip(*commands)

    def close(self) -> None:
        """Close the reference; the namespace ends when there is no other one."""
        os.close(self._fd)


def run_ip(*commands: str) -> None:
    """Run `ip` commands in this thread's namespace, and raise `AssertionError` if one fails."""
    run_command("ip", "-batch", "-", given="\n".join(commands))


def run_command(*command: str, given: str = "") -> str:
    """Return the output of a command. Raises `AssertionError` if it fails; it may take 60 s."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


@contextmanager
def _returning() -> Iterator[None]:
    """Move this thread back to its namespace at the end."""
    home = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _call("setns", home, _CLONE_NEWNET)
        os.close(home)


def _call(name: str, *args: int) -> None:
    """Call a function of libc. Raises `OSError`."""
    if getattr(_libc, name)(*args):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
