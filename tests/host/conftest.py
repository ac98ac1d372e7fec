"""What tests of the host's own programs share."""

import os
import shutil

import pytest


@pytest.fixture
def nft() -> str:
    """The program nft; skips where there is none."""
    program = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip("needs nft: apt-get install nftables")
    return program
