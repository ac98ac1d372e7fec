"""Tests on the nftables of this kernel. Each runs in network namespaces of its own: the host's tables are not seen."""

import shutil
from collections.abc import Iterator

import pytest

from tests.ipvs.lab import Lab
from tests.netns import private_network


@pytest.fixture
def network() -> Iterator[None]:
    """The test is in an empty network namespace with nftables of its own."""
    if shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip("needs nft; `tests/install-packages` says what to install")
    with private_network():
        yield


@pytest.fixture
def lab(network: None) -> Iterator[Lab]:
    """The test is on the director, between a client and two backends."""
    lab = Lab(ipvs=False)
    yield lab
    lab.close()
