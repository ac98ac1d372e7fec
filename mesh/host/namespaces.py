"""Runs functions in the network namespace of another process: setns(2), in a thread that does nothing else.

A socket belongs to the namespace that its thread was in when it was made. The thread ends after the function, so that
no other work of this process ever runs in the other namespace.
"""

import ctypes
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from mesh.host import HostError
from mesh.model.codes import Code
from mesh.model.service import Address

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CAP_SYS_PTRACE, _CAP_SYS_ADMIN = 19, 21  # linux/capability.h
_MAX_RESOLV_CONF = 1 << 16
_MAX_NAMESERVERS = 3  # resolv.conf(5), MAXNS
_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(HostError):
    """A network namespace cannot be entered. The text ends with the remedy."""


def may_enter_namespaces() -> bool:
    """Return whether this process has the capabilities for the network namespaces of containers.

    setns(2) needs CAP_SYS_ADMIN, and a process of another user is only visible with CAP_SYS_PTRACE.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            capabilities = int(line.split()[1], 16)
            return all(capabilities >> number & 1 for number in (_CAP_SYS_PTRACE, _CAP_SYS_ADMIN))
    return False


def run_in_namespace(pid: int, work: Callable[[], T]) -> T:
    """Return what `work` returns in the network namespace of a process. It blocks until then.

    Raises `NamespaceError`, and what `work` raises.
    """
    namespace = _open_namespace(pid)

    def enter() -> T:
        if _libc.setns(namespace, _CLONE_NEWNET):
            raise _refusal(pid, OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())))
        return work()

    try:
        # A pool of its own: its only thread never does anything else, and has ended afterwards.
        with ThreadPoolExecutor(1, thread_name_prefix=f"namespace of {pid}") as pool:
            return pool.submit(enter).result()
    finally:
        os.close(namespace)


def nameservers_of(pid: int) -> tuple[Address, ...]:
    """Return the name servers in the resolv.conf(5) of a process, at most three; empty if there are none.

    The file is the container's: it is read only if it is a regular file, and up to 64 KiB. Raises `NamespaceError`.
    """
    try:
        file = os.open(f"/proc/{pid}/root/etc/resolv.conf", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _refusal(pid, error) from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return ()
        text = os.read(file, _MAX_RESOLV_CONF).decode("utf-8", "replace")
    finally:
        os.close(file)
    return parse_nameservers(text)


def parse_nameservers(text: str) -> tuple[Address, ...]:
    """Return the addresses of the name servers in the text of a resolv.conf(5), at most three."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(str(ip_address(words[1])))
            except ValueError:
                continue
    return tuple(found[:_MAX_NAMESERVERS])


def _open_namespace(pid: int) -> int:
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(pid, error) from error


def _refusal(pid: int, error: OSError) -> NamespaceError:
    remedy = "run it as root on the host" if isinstance(error, PermissionError) else "run it again"
    return NamespaceError(
        Code.NAMESPACE_NOT_ENTERED,
        f"the network namespace of process {pid} cannot be entered: {error.strerror}; {remedy}",
    )
