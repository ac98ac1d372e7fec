"""The judgement of rules as programs write them agrees with the matrix: endpoints at containers' own addresses."""

import asyncio

import pytest

from mesh.host.firewall.direct_access import DirectDrop, DirectEndpoint, direct_access_problems, direct_drop
from mesh.host.firewall.facts import read_facts
from mesh.host.firewall.programs import SystemPrograms
from mesh.model.service import Transport
from tests.netns import private_network
from tests.system.hosts.lab import CONTAINERS, HostKind, HostLab
from tests.system.hosts.matrix import LABS, PASSES, MatrixLab, read_expected
from tests.system.ipvs.lab import PORT

ROW = "the same, endpoint at the container's address"
DROPS_PUBLISHED = {"docker-28", "docker-29", "docker-29-nft"}
"""Rule sets that drop what is sent to a container's address although the container publishes the port."""


@pytest.mark.parametrize("case", [lab for lab in LABS if lab.plane == "nftables"], ids=lambda lab: lab.name)
def test_what_the_matrix_refuses_is_reported_and_nothing_else(case: MatrixLab) -> None:
    expected = read_expected()
    with private_network():
        lab = HostLab(HostKind(case.rules, case.rp_filter, case.version))
        try:
            with lab.entered("worker"):
                texts = asyncio.run(SystemPrograms().read(case.version))
        finally:
            lab.close()
    facts = read_facts(texts, case.version)
    for number, transport in enumerate((Transport.TCP, Transport.UDP)):
        mark = expected.labs[case.name][ROW][number]
        silent, publishing = (_endpoint(name, case.version, transport) for name in ("a", "c"))
        assert direct_drop(silent, "br-front", facts) is (None if mark == PASSES else DirectDrop.PORT)
        drop = DirectDrop.ADDRESS if case.rules in DROPS_PUBLISHED else None
        assert direct_drop(publishing, "br-front", facts) is drop
        codes = [str(problem.code) for problem in direct_access_problems(facts, [silent], case.version)]
        assert codes == ([] if mark == PASSES else [expected.refusals[mark].code])


def _endpoint(name: str, version: int, transport: Transport) -> DirectEndpoint:
    container = CONTAINERS[name]
    return DirectEndpoint(name, container.address6 if version == 6 else container.address, PORT, transport)
