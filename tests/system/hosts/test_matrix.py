"""Every cell of the firewall matrix is as `tests/data/firewall/matrix.toml` has it: on real daemons, in namespaces."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.netns import private_network
from tests.system.e2e.programs import CI
from tests.system.hosts.daemons import DaemonStarter
from tests.system.hosts.lab import HostKind, HostLab
from tests.system.hosts.matrix import CLIENTS, LABS, PASSES, ExpectedMatrix, MatrixLab, read_expected
from tests.system.hosts.probing import probe_cells, running_daemons


@pytest.fixture(scope="module")
def starter() -> Iterator[DaemonStarter]:
    for program, package in (("nft", "nftables"), ("iptables-restore", "iptables"), ("dig", "bind9-dnsutils")):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") and not CI:
            pytest.skip(f"needs {program}: apt-get install {package}")
    starter = DaemonStarter()
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def expected() -> ExpectedMatrix:
    return read_expected()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lab, id=lab.name.replace(" ", "-"), marks=[pytest.mark.ipvs] if lab.plane == "ipvs" else [])
        for lab in LABS
    ],
)
async def test_every_cell_is_as_expected(
    case: MatrixLab, starter: DaemonStarter, expected: ExpectedMatrix, tmp_path: Path
) -> None:
    if case.plane == "ipvs" and not Path("/proc/net/ip_vs").exists():
        pytest.skip("needs a kernel with IPVS: `make test-ipvs`, or tests/on-ipvs-kernel CMD")
    rows = expected.labs.get(case.name, {})
    with private_network():
        lab = HostLab(HostKind(case.rules, case.rp_filter, case.version))
        try:
            async with lab.answering(), running_daemons(lab, case, starter, tmp_path) as daemons:
                found = await probe_cells(lab, rows)
        finally:
            lab.close()
    logs = "\n".join(f"{name}:\n{daemon.output()}" for name, daemon in daemons.items())
    assert found == _outcomes(rows), f"found\n\n{_as_toml(case, found)}\n\n{logs}"


def _outcomes(rows: Mapping[str, str]) -> dict[str, str]:
    """The expected rows as a probe sees them, which cannot tell why a cell does not pass."""
    return {
        title: "".join(c if c in (PASSES, " ") else "-" for c in rows.get(title, ""))
        for title in (c.title for c in CLIENTS)
    }


def _as_toml(case: MatrixLab, rows: Mapping[str, str]) -> str:
    return "\n".join([f'[labs."{case.name}"]', *(f'"{title}" = "{row}"' for title, row in rows.items())])
