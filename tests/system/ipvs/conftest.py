"""Tests on real IPVS. Each runs in network namespaces of its own and never reads or changes the host's tables."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import private_network
from tests.system.ipvs.lab import Lab


@pytest.fixture(scope="session", autouse=True)
def _ipvs() -> None:
    if os.geteuid() == 0 and Path("/proc/net/ip_vs").exists():
        return
    missing = "needs root and a kernel with IPVS: `make test-ipvs`, or tests/on-ipvs-kernel CMD"
    if "ON_IPVS_KERNEL" in os.environ:
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture
def network() -> Iterator[None]:
    """The test is in an empty network namespace with IPVS of its own."""
    with private_network():
        yield


@pytest.fixture
def lab(network: None) -> Iterator[Lab]:
    """The test is on the director, between a client and two backends."""
    lab = Lab()
    yield lab
    lab.close()
