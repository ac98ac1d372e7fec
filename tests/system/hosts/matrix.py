"""The firewall matrix: which client reaches a service where, on which data plane, beside which firewall.

A cell is one client, one target and one transport. `tests/data/firewall_matrix.toml` has what is expected of each.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tests.system.hosts.rule_sets import RULE_SETS

EXPECTED = Path(__file__).parents[2] / "data" / "firewall_matrix.toml"

PLANES = ("ipvs", "nftables", "userspace")
RULES_WITH_IPV6 = ("none", "docker-28")
TRANSPORTS = ("TCP", "UDP")
TARGETS = ("VIP", "published port of its worker", "published port of another worker")
PASSES = "+"


@dataclass(frozen=True)
class MatrixLab:
    """A data plane beside the rules of a firewall."""

    plane: str
    rules: str
    version: int = 4
    """The IP version of the VIPs."""

    @property
    def name(self) -> str:
        return f"{self.plane} {self.rules}" + (" IPv6" if self.version == 6 else "")

    @property
    def rp_filter(self) -> int:
        """1, strict, and 2, loose, by turns."""
        return 1 + list(RULE_SETS).index(self.rules) % 2


LABS = tuple(
    MatrixLab(plane, rules, version)
    for plane, rules, version in product(PLANES, RULE_SETS, (4, 6))
    if version == 4 or rules in RULES_WITH_IPV6
)


@dataclass(frozen=True)
class MatrixClient:
    """A kind of client: a row of a lab's table."""

    title: str
    place: str
    """The host or container of the lab."""
    service: str = "one"
    """The service that it asks."""
    worker: str = "worker"
    """The worker that its VIP leads to."""
    place_for_other: str = ""
    """The host or container that asks the other worker, if it is a different one."""


CLIENTS = (
    MatrixClient("container of the endpoint's network", "near"),
    MatrixClient("container of another network", "far"),
    MatrixClient("the endpoint's worker", "worker"),
    MatrixClient("another host", "another host"),
    MatrixClient("container on another worker", "remote", worker="other worker"),
    MatrixClient("the same, endpoint at the container's address", "remote", "routed", "other worker"),
    MatrixClient("the endpoint itself, the only one", "a", place_for_other="c"),
    MatrixClient("the endpoint itself, one of two", "a", "two", place_for_other="c"),
)


@dataclass(frozen=True)
class Refusal:
    """Why cells do not pass, and what an operator writes to open them."""

    reason: str
    remedy: str
    """Empty for a defect that has no remedy yet."""
    reported: bool = False
    """Whether the daemon reports it with the lines that open the cell: tests load what they make of the firewall.

    """
    code: str = ""
    """The problem by which the endpoint's worker reports it in a cluster, where the lines do not open the cell on the
    lab's networks as they are; empty if there is none.
    """


@dataclass(frozen=True)
class ExpectedMatrix:
    """The content of the file."""

    refusals: Mapping[str, Refusal]
    """By the letter that stands for it in a cell."""
    labs: Mapping[str, Mapping[str, str]]
    """The rows by title of the client, by name of the lab.

    A row has a character for each target and transport, TCP before UDP, with a blank between targets: `+` for a cell
    that passes, else the letter of its refusal.
    """

    unmeasured: frozenset[str] = frozenset()
    """The names of labs that have not been run since their rows were written."""

    def opened_row(self, row: str) -> str:
        """Return the row once the reported lines are in force."""
        return "".join(PASSES if mark in self.refusals and self.refusals[mark].reported else mark for mark in row)


def read_expected(path: Path = EXPECTED) -> ExpectedMatrix:
    """Read the file."""
    content = tomllib.loads(path.read_text())
    refusals = {letter: Refusal(**fields) for letter, fields in content["refusals"].items()}
    return ExpectedMatrix(refusals, content["labs"], frozenset(content.get("unmeasured", ())))


def write_row(cells: Sequence[str]) -> str:
    """Return a row from its characters, targets before transports."""
    width = len(TRANSPORTS)
    return " ".join("".join(cells[start : start + width]) for start in range(0, len(cells), width))
