"""Source NAT, so that replies come back through the worker that translated the destination: where they would not.

IPVS rewrites where a packet goes, not where it comes from. If the endpoint then answers the client directly, the
client drops the answer of a stranger. With `net.ipv4.vs.conntrack=1` the connection's original destination is known
after the translation, so a table of a few rules finds our connections without following services:

1. to an endpoint elsewhere: it has another default route;
2. from a container to itself or a neighbour on the same network (hairpin): the neighbour would answer directly;
3. of the host itself: the source would be the VIP, or an address that the endpoint reaches another way.

What is left keeps the client's address: a client elsewhere and an endpoint on a network of this worker's containers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from mesh.host import HostError
from mesh.host.local_networks import read_local_networks
from mesh.host.overlap import Network
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.service import Address, Transport
from mesh.util import nft

TABLE = "vipmesh"


@dataclass(frozen=True, slots=True)
class MasqueradeRules:
    """What the table follows from."""

    pool: Network
    local_networks: tuple[Network, ...] = ()
    """Whose hosts answer through this worker."""
    addresses: tuple[Address, ...] = ()
    """The worker's own, of any family, on which ports are published."""
    published: tuple[tuple[Transport, int], ...] = ()


def render_script(rules: MasqueradeRules) -> str:
    """The script for nft(8) that replaces our table by what the rules ask for, in one transaction."""
    family = _family(rules.pool)
    lines = "\n".join(f"\t{line}" if line else "" for line in _table(rules, family))
    return f"add table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n{lines}\n}}\n"


class Masquerade:
    """Keeps the table as it must be: an `HostUpkeep` of the control loop."""

    def __init__(self, pool: Network, answering: Sequence[Network] = ()) -> None:
        """`answering`: networks whose hosts have this worker as their default route, beside those of its containers."""
        self._pool = pool
        self._answering = tuple(answering)
        self._script = ""
        self._left: str | None = None
        """What nft listed after the script was loaded."""

    async def mend(self, addresses: frozenset[Address], claims: Claims) -> list[str]:
        """Make it so; a line if it was not there, or not as it was left. Raises `HostError`."""
        try:
            return await self._mend(addresses, claims)
        except nft.NftError as error:
            raise HostError(
                Code.SOURCE_NAT, f"source NAT cannot be set up, replies of endpoints elsewhere are lost: {error}"
            ) from error

    async def _mend(self, addresses: frozenset[Address], claims: Claims) -> list[str]:
        found = await read_local_networks(self._pool)
        networks = tuple(dict.fromkeys((*found, *(n for n in self._answering if n.version == self._pool.version))))
        script = render_script(
            MasqueradeRules(self._pool, networks, tuple(sorted(addresses)), tuple(sorted(claims.ports)))
        )
        family = _family(self._pool)
        there = await nft.list_table(family, TABLE)
        if there is not None and there == self._left and script == self._script:
            return []
        await nft.load_script(script)
        before, self._left, self._script = self._left, await nft.list_table(family, TABLE), script
        if there is None:
            return [f"nftables table {family} {TABLE} made"]
        return [f"nftables table {family} {TABLE} was changed"] if before not in (None, there) else []

    async def remove(self) -> list[str]:
        """Take the table away, of both families; what was there, a line each. Raises `HostError`."""
        try:
            removed = [family for family in ("ip", "ip6") if await nft.delete_table(family, TABLE)]
        except nft.NftError as error:
            raise HostError(Code.SOURCE_NAT, f"the nftables table {TABLE} stays: {error}") from error
        return [f"delete nftables table {family} {TABLE}" for family in removed]


def _table(rules: MasqueradeRules, family: str) -> Iterator[str]:
    addresses = [a for a in rules.addresses if ip_address(a).version == rules.pool.version]
    kind = "ipv6_addr" if rules.pool.version == 6 else "ipv4_addr"
    yield from _set("addresses", kind, addresses)
    for transport in Transport:
        ports = [str(port) for published, port in rules.published if published is transport]
        yield from _set(f"published_{transport}", "inet_service", ports)
    yield from _set("local_networks", f"{kind}; flags interval", [str(network) for network in _outermost(rules)])
    yield "chain postrouting {"
    yield "\ttype nat hook postrouting priority srcnat; policy accept;"
    yield '\toif "lo" return'
    yield f"\tct original {family} daddr {rules.pool} jump translated"
    for transport in Transport:
        of = f"meta l4proto {transport} ct original proto-dst @published_{transport}"
        yield f"\tct original {family} daddr @addresses {of} jump translated"
    yield "}"
    yield "chain translated {"
    yield f'\t{family} daddr {rules.pool} return comment "not rewritten: tunnel or direct forwarding"'
    yield f"\t{family} daddr @addresses return"
    yield '\tfib saddr type local masquerade comment "the host itself"'
    for network in _outermost(rules):
        yield f'\t{family} saddr {network} {family} daddr {network} masquerade comment "hairpin"'
    yield f'\t{family} daddr != @local_networks masquerade comment "endpoints elsewhere"'
    yield "}"


def _set(name: str, kind: str, elements: Iterable[str]) -> Iterator[str]:
    yield f"set {name} {{"
    yield f"\ttype {kind};"
    joined = ", ".join(elements)
    if joined:
        yield f"\telements = {{ {joined} }}"
    yield "}"


def _outermost(rules: MasqueradeRules) -> list[Network]:
    """Without networks inside of others, which a set of intervals refuses."""
    return [
        network
        for network in rules.local_networks
        if not any(other != network and _within(network, other) for other in rules.local_networks)
    ]


def _within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]  # same version


def _family(pool: Network) -> str:
    return "ip6" if pool.version == 6 else "ip"
