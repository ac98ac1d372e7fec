"""The program nft: what it applies, what it reads back, and what is said when it would not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.host import nft as subject
from mesh.host.nft import NftError, run, table
from tests.netns import need, private_network

TABLE = "table ip mine { chain c { counter; }; }"


@pytest.fixture
def network() -> Iterator[None]:
    need("nft", "nftables")
    with private_network():
        yield


@pytest.fixture
def imposter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is found as `nft`; the test writes what it does."""
    file = tmp_path / "nft"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return file


async def test_a_table_is_read_as_it_was_written(network: None) -> None:
    assert await table("ip", "mine") is None
    await run(TABLE)
    found = await table("ip", "mine")
    assert found is not None
    assert [next(iter(thing)) for thing in found] == ["table", "chain", "rule"]
    assert await table("ip6", "mine") is None


async def test_a_script_is_applied_whole_or_not_at_all(network: None) -> None:
    with pytest.raises(NftError, match=r"nft: /dev/stdin:2:[0-9-]+: Error: .*No such file or directory"):
        await run(f"{TABLE}\nadd rule ip another c counter\n")
    assert await table("ip", "mine") is None


async def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(subject, "_SBIN", "/nowhere")
    with pytest.raises(NftError, match=r"nft is not installed.*`apt-get install nftables`"):
        await run("")


@pytest.mark.parametrize(
    ("complaint", "told"),
    [
        pytest.param(
            "Operation not permitted (you must be root)", r"run the daemon as root, or .*CAP_NET_ADMIN", id="permission"
        ),
        pytest.param(
            "Error: Could not process rule: Operation not supported", "`modprobe -a nft_chain_nat", id="kernel"
        ),
        pytest.param("Error: JSON support not compiled-in", "nft: Error: JSON support not compiled-in$", id="other"),
        pytest.param("", "nft: no reason given$", id="silence"),
    ],
)
async def test_a_refusal_comes_with_its_remedy(imposter: Path, complaint: str, told: str) -> None:
    imposter.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
    with pytest.raises(NftError, match=told):
        await table("ip", "mine")


async def test_a_program_that_hangs_is_ended(imposter: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subject, "PATIENCE", 0.3)
    imposter.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 60\n")
    with pytest.raises(NftError, match=r"took more than 0\.3 s"):
        await run("")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
