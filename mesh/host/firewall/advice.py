"""The lines that open a firewall of which vipmesh does not write the rules. Pure.

`vipmesh doctor` and `vipmesh status` print them; a test loads the same ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.config.values import Network
from mesh.host.firewall.facts import USER_CHAIN, AcceptMark, Backend
from mesh.model.service import Address

_PROTOCOLS = ("tcp", "udp")


@dataclass(frozen=True, slots=True)
class OpenedAddresses:
    """The destinations that clients of this worker use."""

    pool: Network
    """The VIP pool; the lines are for its IP version."""
    ports: range
    """The range of published ports."""
    resolver: Address | None = None
    """The address of the name server for containers, inside the pool; None if there is none."""


def iptables_program(backend: Backend, version: int) -> str:
    """Return the program that edits the rules of a backend."""
    return f"{'ip6tables' if version == 6 else 'iptables'}-{backend}"


def accept_words(mark: AcceptMark) -> tuple[str, ...]:
    """Return the rule that accepts what we have marked, as arguments of iptables and without a comment."""
    return "-m", "mark", "--mark", str(mark), "-j", "ACCEPT"


def user_chain_line(program: str, mark: AcceptMark, place: int | None) -> str:
    """Return the line that lets translated connections through the engine's rules.

    `place` is where in the chain it belongs, from 1; None stands for its end.
    """
    where = ("-A", USER_CHAIN) if place is None else ("-I", USER_CHAIN, str(place))
    return " ".join((program, *where, *accept_words(mark)))


def forward_line(program: str, mark: AcceptMark) -> str:
    """Return the line that lets translated connections through the chain `FORWARD`."""
    return " ".join((program, "-I", "FORWARD", *accept_words(mark)))


def engine_setting(mark: AcceptMark) -> str:
    """Return the setting of the engine's nftables backend, as a line of /etc/docker/daemon.json."""
    return f'"bridge-accept-fwmark": "{mark}"'


def nft_forward_line(table: str, chain: str, mark: AcceptMark) -> str:
    """Return the line that lets translated connections through a base chain at the hook `forward`."""
    return f"nft insert rule {table} {chain} meta mark and {mark.mask:#x} == {mark.value:#x} accept"


def nft_input_lines(table: str, chain: str, opened: OpenedAddresses) -> Iterator[str]:
    """Yield the lines that let clients through a base chain at the hook `input`."""
    family = "ip6" if opened.pool.version == 6 else "ip"
    yield f"nft insert rule {table} {chain} {family} daddr {opened.pool} accept"
    span = f"{opened.ports[0]}-{opened.ports[-1]}"
    for protocol in _PROTOCOLS:
        yield f"nft insert rule {table} {chain} {protocol} dport {span} accept"


def iptables_input_lines(program: str, opened: OpenedAddresses) -> Iterator[str]:
    """Yield the lines that let clients through the chain `INPUT`."""
    yield f"{program} -I INPUT -d {opened.pool} -j ACCEPT"
    for protocol in _PROTOCOLS:
        yield f"{program} -I INPUT -p {protocol} --dport {opened.ports[0]}:{opened.ports[-1]} -j ACCEPT"


def ufw_input_lines(opened: OpenedAddresses) -> Iterator[str]:
    """Yield the lines that let clients reach this host through ufw."""
    yield f"ufw allow to {opened.pool}"
    for protocol in _PROTOCOLS:
        yield f"ufw allow {opened.ports[0]}:{opened.ports[-1]}/{protocol}"


def ufw_forward_line(mark: AcceptMark, version: int) -> str:
    """Return the line that lets translated connections through what ufw forwards; it stays over `ufw reload`."""
    six = "6" if version == 6 else ""
    rule = f"-A ufw{six}-before-forward {' '.join(accept_words(mark))}".replace("/", r"\/")
    return rf"sed -i '0,/^COMMIT/s//{rule}\nCOMMIT/' /etc/ufw/before{six}.rules && ufw reload"


def firewalld_lines(opened: OpenedAddresses) -> Iterator[str]:
    """Yield the lines that let clients reach this host through firewalld, in its default zone."""
    family = "ipv6" if opened.pool.version == 6 else "ipv4"
    rule = f'rule family="{family}" destination address="{opened.pool}" accept'
    yield f"firewall-cmd --permanent --add-rich-rule='{rule}'"
    for protocol in _PROTOCOLS:
        yield f"firewall-cmd --permanent --add-port={opened.ports[0]}-{opened.ports[-1]}/{protocol}"
    yield "firewall-cmd --reload"
