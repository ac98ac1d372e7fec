"""Every cell of the firewall matrix is as `tests/data/firewall_matrix.toml` has it: on real daemons, in namespaces."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.netns import private_network
from tests.system.e2e.programs import CI, eventually
from tests.system.hosts.daemons import DaemonStarter
from tests.system.hosts.lab import HostKind, HostLab
from tests.system.hosts.matrix import CLIENTS, LABS, PASSES, ExpectedMatrix, MatrixLab, read_expected
from tests.system.hosts.probing import RunningWorker, probe_cells, running_workers
from tests.system.hosts.rule_sets import opening_lines


@pytest.fixture(scope="module")
def starter() -> Iterator[DaemonStarter]:
    for program, package in (("nft", "nftables"), ("iptables-restore", "iptables")):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") and not CI:
            pytest.skip(f"needs {program}: apt-get install {package}")
    starter = DaemonStarter()
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def expected() -> ExpectedMatrix:
    return read_expected()


ALWAYS_ON_IPVS = frozenset({"ipvs docker-20.10"})
"""The labs on IPVS that `make test` runs. In a virtual machine that emulates its processor each takes minutes, so that
the others have a target of their own, `make test-ipvs-matrix`.
"""


def _marks(lab: MatrixLab) -> list[pytest.MarkDecorator]:
    if lab.plane != "ipvs":
        return []
    return [pytest.mark.ipvs if lab.name in ALWAYS_ON_IPVS else pytest.mark.ipvs_matrix]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", [pytest.param(lab, id=lab.name.replace(" ", "-"), marks=_marks(lab)) for lab in LABS])
async def test_every_cell_is_as_expected(
    case: MatrixLab, starter: DaemonStarter, expected: ExpectedMatrix, tmp_path: Path
) -> None:
    if case.plane == "ipvs" and not Path("/proc/net/ip_vs").exists():
        pytest.skip("needs a kernel with IPVS: `make test-ipvs`, or tests/on-ipvs-kernel CMD")
    rows = expected.labs.get(case.name, {})
    with private_network():
        lab = HostLab(HostKind(case.rules, case.rp_filter, case.version))
        try:
            async with lab.answering(), running_workers(lab, case, starter, tmp_path) as workers:
                found = await probe_cells(lab, rows)
                assert found == _outcomes(rows), f"found\n\n{_as_toml(case, found)}"
                opened = {title: expected.opened_row(row) for title, row in rows.items()}
                if opened != rows:
                    await _open_by_the_lines_of_status(lab, workers)
                    assert await probe_cells(lab, opened) == _outcomes(opened)
                assert [await worker.problems() for worker in workers.values()] == [[], []]
        finally:
            lab.close()


async def _open_by_the_lines_of_status(lab: HostLab, workers: Mapping[str, RunningWorker]) -> None:
    """Check that both workers report what is refused, load what the reported lines make of the firewall, and wait until
    the workers report it no longer.
    """
    lines = opening_lines(lab.kind.rules)
    assert lines
    for worker in workers.values():
        await eventually(worker.problems, lambda shown: all(line in "\n".join(shown) for line in lines))
    lab.open_firewalls()
    for worker in workers.values():
        await eventually(worker.problems, lambda shown: not shown)


def _outcomes(rows: Mapping[str, str]) -> dict[str, str]:
    """The expected rows as a probe sees them, which cannot tell why a cell does not pass."""
    return {
        title: "".join(mark if mark in (PASSES, " ") else "-" for mark in rows.get(title, ""))
        for title in (client.title for client in CLIENTS)
    }


def _as_toml(case: MatrixLab, rows: Mapping[str, str]) -> str:
    return "\n".join([f'[labs."{case.name}"]', *(f'"{title}" = "{row}"' for title, row in rows.items())])
