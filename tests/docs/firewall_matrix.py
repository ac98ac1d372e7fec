"""Writes docs/firewall-matrix.md from what the tests of the matrix expect.

python -m tests.docs.firewall_matrix
"""

from collections.abc import Iterator

from mesh.model.codes import Code
from tests.docs.pages import ROOT
from tests.system.hosts.matrix import (
    CLIENTS,
    LABS,
    PASSES,
    PLANES,
    TARGETS,
    TRANSPORTS,
    ExpectedMatrix,
    MatrixLab,
    read_expected,
)
from tests.system.hosts.rule_sets import RULE_SETS

PAGE = ROOT / "docs" / "firewall-matrix.md"

_TITLES = {
    "none": "no firewall",
    "docker-20.10": "Docker 20.10",
    "docker-20.10-swarm": "Docker 20.10 in swarm mode",
    "docker-28": "Docker 28",
    "docker-29": "Docker 29, iptables",
    "docker-29-nft": "Docker 29, nftables",
    "ufw": "ufw and Docker 20.10",
    "firewalld": "firewalld and Docker 20.10",
}
_INTRODUCTION = """# Firewall matrix

Which client reaches a service where, on which data plane, beside which firewall. Tests ask every cell with real
packets, on two workers that run the daemon with its default settings: each is a network namespace with Docker's
networks and with the rules that the named programs write (`tests/data/firewall`). Packets on bridges pass the firewall,
`rp_filter` is 1 beside half of the firewalls and 2 beside the others. This page is generated from what these tests
expect. The same tests load what the lines that `vipmesh status` reports make of a firewall: its cells pass then.

**yes** means that each request is answered at its first attempt, over TCP and UDP. A letter is a refusal, explained
[below](#refusals).

- *The endpoint's worker* runs the endpoint in a container that publishes no port with `docker run -p`. *Another worker*
  reaches endpoints at their worker's address and at a port that Docker publishes there, as in a cluster by default, and
  where no Docker is, at the container's address.
- *Its worker* is the endpoint's: the client asks that worker's own address and the published port of the service.
"""


def page() -> str:
    """`docs/firewall-matrix.md` as it must be."""
    expected = read_expected()
    lines = [_INTRODUCTION.rstrip()]
    for plane in PLANES:
        lines += ["", f"## {plane}", *_table([lab for lab in LABS if lab.plane == plane], expected)]
    lines += ["", "## Refusals", "| | why | what opens it |", "|---|---|---|"]
    used = {mark for rows in expected.labs.values() for row in rows.values() for mark in row}
    for letter, refusal in expected.refusals.items():
        if letter in used:
            told = f" In a cluster the endpoint's worker reports it: {_problem(refusal.code)}." if refusal.code else ""
            lines.append(f"| {letter} | {refusal.reason}{told} | {refusal.remedy or 'nothing yet'} |")
    return "\n".join(lines) + "\n"


def _table(labs: list[MatrixLab], expected: ExpectedMatrix) -> Iterator[str]:
    """The table of one data plane: a row for each client and target, a column for each firewall."""
    titles = (
        _title(lab) + (" (expected, not measured yet)" if lab.name in expected.unmeasured else "") for lab in labs
    )
    yield f"| client | asks | {' | '.join(titles)} |"
    yield f"|---|---|{'---|' * len(labs)}"
    for client in CLIENTS:
        for number, target in enumerate(TARGETS):
            cells = " | ".join(_cell(expected.labs[lab.name][client.title].split()[number]) for lab in labs)
            yield f"| {client.title} | {target} | {cells} |"


def _problem(code: str) -> str:
    """A link to what a code means."""
    found = next(each for each in Code if each.value == code)
    heading = f"{found} {found.title}".lower()
    return (
        f"[{code}](errors.md#{''.join(each for each in heading if each.isalnum() or each in ' -').replace(' ', '-')})"
    )


def _title(lab: MatrixLab) -> str:
    return _TITLES[lab.rules] + (", IPv6" if lab.version == 6 else "")


def _cell(marks: str) -> str:
    """The text of a cell, from its character for each transport."""
    words = ["yes" if mark == PASSES else mark for mark in marks]
    if len(set(words)) == 1:
        return words[0]
    return ", ".join(f"{transport} {word}" for transport, word in zip(TRANSPORTS, words, strict=True))


if set(_TITLES) != set(RULE_SETS):
    raise ValueError(f"titles of {set(_TITLES) ^ set(RULE_SETS)}: each rule set needs one title")

if __name__ == "__main__":
    PAGE.write_text(page())
