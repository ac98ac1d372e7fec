"""Functions that run in the network namespace of another process, and its name servers."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.host.namespaces import (
    NamespaceError,
    may_enter_namespaces,
    nameservers_of,
    parse_nameservers,
    run_in_namespace,
)
from mesh.host.requests import has_address
from tests.netns import Namespace

INSIDE = "192.0.2.77"


@pytest.fixture
def pid() -> Iterator[int]:
    """A process in a network namespace of its own, which has an address."""
    if not may_enter_namespaces():
        pytest.skip("needs the right to enter network namespaces: run as root")
    namespace = Namespace()
    namespace.ip("link set lo up", f"address add {INSIDE}/32 dev lo")
    with namespace.entered():
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()
    namespace.close()


def test_it_runs_inside_and_this_thread_stays_outside(pid: int) -> None:
    assert run_in_namespace(pid, lambda: has_address(INSIDE))
    assert not has_address(INSIDE)


def test_what_it_raises_is_raised_here(pid: int) -> None:
    with pytest.raises(ZeroDivisionError):
        run_in_namespace(pid, lambda: 1 // 0)


def test_a_process_that_has_ended_is_an_error_with_a_remedy() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(NamespaceError, match="cannot be entered: No such file or directory; run it again"):
        run_in_namespace(process.pid, lambda: None)


def test_the_name_servers_are_read_from_the_file_of_the_process() -> None:
    assert nameservers_of(os.getpid()) == parse_nameservers(Path("/etc/resolv.conf").read_text())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("nameserver 127.0.0.11\noptions ndots:0\n", ("127.0.0.11",)),
        ("nameserver\nnameserver nonsense\n# nameserver 192.0.2.1\nnameserver FD00::1\n", ("fd00::1",)),
        ("".join(f"nameserver 192.0.2.{n}\n" for n in range(9)), ("192.0.2.0", "192.0.2.1", "192.0.2.2")),
    ],
)
def test_name_servers_in_a_resolv_conf(text: str, found: tuple[str, ...]) -> None:
    assert parse_nameservers(text) == found
