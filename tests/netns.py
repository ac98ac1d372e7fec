"""A test in a network namespace of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mesh.testing.netns import Namespace, run_command, run_ip

__all__ = ["Namespace", "private_network", "run_command", "run_ip"]


@contextmanager
def private_network() -> Iterator[None]:
    """This thread, and what it starts, is in a new namespace with `lo` up; skips where we may not make one."""
    try:
        namespace = Namespace()
    except PermissionError:
        pytest.skip("needs the right to make network namespaces: run as root")
    with namespace.entered():
        run_ip("link set lo up")
        yield
    namespace.close()
