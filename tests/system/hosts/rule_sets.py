"""Firewall rules as programs on users' hosts write them, to be loaded into a network namespace.

The rules are files in tests/data/firewall, in the formats of iptables-restore(8) and nft(8); each says its origin.
Placeholders stand for what differs between hosts. A line is repeated for everything that its placeholders name, and
consecutive lines of the first kind are repeated together:

    <bridge> <subnet>                         for each network
    <container>                               for each container; <bridge> and <subnet> are those of its network
    <transport> <host_port> <container_port>  for each published port; <container> is the one that publishes it
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby, product
from pathlib import Path
from types import MappingProxyType

from tests.netns import run_command

RULES = Path(__file__).parents[2] / "data" / "firewall"


@dataclass(frozen=True)
class DockerNetwork:
    """A bridge network."""

    bridge: str
    subnet: str
    subnet6: str = ""
    """Empty for a network without IPv6."""


@dataclass(frozen=True)
class PublishedPort:
    """A port that a container publishes with `-p`."""

    transport: str
    """`tcp` or `udp`."""
    host_port: int
    container_port: int


@dataclass(frozen=True)
class DockerContainer:
    """A container on one network."""

    network: DockerNetwork
    address: str
    address6: str = ""
    """Empty without IPv6."""
    published: tuple[PublishedPort, ...] = ()


@dataclass(frozen=True)
class DockerHost:
    """What an engine writes rules for."""

    networks: tuple[DockerNetwork, ...]
    """In the order in which they were made."""
    containers: tuple[DockerContainer, ...]


@dataclass(frozen=True)
class RuleSet:
    """The rules of one kind of host."""

    files: tuple[str, ...]
    """In the order in which they are loaded."""
    docker: bool = True
    """Whether Docker's rules are among them, so that ports which containers publish are open."""
    opening: tuple[str, ...] = ()
    """What the lines of `vipmesh doctor` add, which an operator types; empty if there are none."""


_TOOLS = {
    ".iptables": ("iptables-restore", "--noflush"),
    ".ip6tables": ("ip6tables-restore", "--noflush"),
    ".nft": ("nft", "-f", "-"),
}

RULE_SETS: Mapping[str, RuleSet] = MappingProxyType(
    {
        "none": RuleSet((), docker=False),
        "docker-20.10": RuleSet(("docker-20.10.iptables",)),
        "docker-20.10-swarm": RuleSet(("docker-20.10-swarm.iptables",)),
        "docker-28": RuleSet(("docker-28.iptables", "docker-28.ip6tables")),
        "docker-29": RuleSet(("docker-29.iptables",)),
        "docker-29-nft": RuleSet(("docker-29.nft",), opening=("docker-29-opening.nft",)),
        # Docker puts its rules before ufw's, whichever of the two starts first.
        "ufw": RuleSet(("docker-20.10.iptables", "ufw.iptables"), opening=("ufw-opening.iptables",)),
        "firewalld": RuleSet(("docker-20.10.iptables", "firewalld.nft"), opening=("firewalld-opening.nft",)),
    }
)
"""By name. In `ufw` and `firewalld` that firewall runs on a host with Docker 20.10."""


def load_rules(files: Sequence[str], host: DockerHost) -> None:
    """Load files into this thread's namespace. Raises `AssertionError` if a tool refuses one."""
    for file in files:
        run_command(*_TOOLS[Path(file).suffix], given=render_rules(file, host))


def opening_lines(name: str) -> list[str]:
    """Return the lines that an operator types for the opening of a rule set: those that its files quote."""
    text = "".join((RULES / file).read_text() for file in RULE_SETS[name].opening)
    return [line.removeprefix("#     ") for line in text.splitlines() if line.startswith("#     ")]


def render_rules(file: str, host: DockerHost) -> str:
    """Return the text of a file with the placeholders replaced."""
    ipv6 = file.endswith(".ip6tables")
    lines = (RULES / file).read_text().splitlines()
    blocks = groupby(lines, _subject)
    return "".join(
        f"{text}\n" for subject, block in blocks for text in _repeated(subject, list(block), host, ipv6=ipv6)
    )


class _Subject(Enum):
    """What a line is repeated for."""

    NOTHING = 0
    NETWORK = 1
    CONTAINER = 2


def _subject(line: str) -> _Subject:
    if line.startswith("#") or "<" not in line:
        return _Subject.NOTHING
    return _Subject.CONTAINER if "<container>" in line or "_port>" in line else _Subject.NETWORK


def _repeated(subject: _Subject, lines: Sequence[str], host: DockerHost, *, ipv6: bool) -> Iterator[str]:
    if subject is _Subject.NOTHING:
        yield from lines
    elif subject is _Subject.NETWORK:
        # An engine inserts the rules of a new network before those of older ones.
        for network in reversed(host.networks):
            if not ipv6 or network.subnet6:
                yield from (_on_network(line, network, ipv6=ipv6) for line in lines)
    else:
        for line, container in product(lines, host.containers):
            address = container.address6 if ipv6 else container.address
            if address:
                text = _on_network(line.replace("<container>", address), container.network, ipv6=ipv6)
                yield from _of_ports(text, container)


def _on_network(line: str, network: DockerNetwork, *, ipv6: bool) -> str:
    return line.replace("<bridge>", network.bridge).replace("<subnet>", network.subnet6 if ipv6 else network.subnet)


def _of_ports(line: str, container: DockerContainer) -> Iterator[str]:
    if "_port>" not in line:
        yield line
        return
    for port in container.published:
        text = line.replace("<transport>", port.transport).replace("<host_port>", str(port.host_port))
        yield text.replace("<container_port>", str(port.container_port))
