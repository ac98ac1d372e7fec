"""Source NAT: replies must come back through the worker that translated the destination.

A reply that takes another way reaches its client from an address that the client never asked, and is dropped there.
Where it would, the connection leaves with this worker's address as its source; everywhere else the endpoint sees the
client's own. Three static rules say where, in a table of our own, for connections to a VIP or to a published port:

* host: a connection of this host itself. Its source would be the VIP, which every worker has;
* elsewhere: the endpoint is in no container network of this worker, so it has a router of its own;
* hairpin: client and endpoint are in the same container network, and the reply would go from one to the other directly.

The rules never change; four small sets follow the network and the claims. What was asked for is in conntrack's
original tuple, which IPVS leaves alone (`ct status dnat` knows nothing of IPVS).

`render` decides; `SourceNat` is the shell around nft.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

from mesh.host import HostError, networks, nft
from mesh.host.routes import Network
from mesh.model import Address, Claims, Transport

TABLE = "vipmesh"
FAMILIES = ("ip", "ip6")

Listing: TypeAlias = Mapping[str, tuple[object, ...]]
"""Part of the table (`chain source`) -> what it holds, without what differs from one reading to the next."""


@dataclass(frozen=True, slots=True)
class NatRules:
    """What the rules depend on. What is not of the pool's address family is left out of them."""

    pool: Network
    addresses: frozenset[Address] = frozenset()
    """The worker's own, that published ports listen on."""
    local_networks: frozenset[Network] = frozenset()
    """Whose hosts answer through this worker."""
    published: frozenset[tuple[Transport, int]] = frozenset()

    @property
    def family(self) -> str:
        """As nft calls it."""
        return family_of(self.pool)


def family_of(pool: Network) -> str:
    """The address family of a pool, as nft calls it."""
    return FAMILIES[pool.version == 6]


def render(rules: NatRules) -> str:
    """A script for nft that replaces the table, whatever is in it, in one transaction."""
    ip, pool = rules.family, rules.pool
    local = _outermost(network for network in rules.local_networks if network.version == pool.version)
    own = sorted(address for address in map(ip_address, rules.addresses) if address.version == pool.version)
    ports = {t: sorted(port for transport, port in rules.published if transport is t) for t in Transport}
    address = f"ipv{pool.version}_addr"
    nat = "counter masquerade fully-random"  # a port at random: two connections at once rarely choose the same one
    lines = [
        f"table {ip} {TABLE}",  # so that there is one to delete
        f"delete table {ip} {TABLE}",
        f"table {ip} {TABLE} {{",
        *_set("local_networks", address, local, "interval"),
        *_set("hairpins", f"{address} . {address}", [f"{network} . {network}" for network in local], "interval"),
        *_set("worker_addresses", address, own),
        *(line for transport in Transport for line in _set(f"published_{transport}", "inet_service", ports[transport])),
        "\tchain postrouting {",
        "\t\ttype nat hook postrouting priority srcnat; policy accept;",
        '\t\toifname "lo" accept comment "an endpoint that is this host itself"',
        f"\t\tct original {ip} daddr {pool} {ip} daddr != {pool} goto source",
        *(
            f"\t\tct original {ip} daddr @worker_addresses "
            f"meta l4proto {transport} ct original proto-dst @published_{transport} goto source"
            for transport in Transport
        ),
        "\t}",
        "\tchain source {",
        f'\t\tfib saddr type local {nat} comment "host: its own connections"',
        f'\t\t{ip} daddr != @local_networks {nat} comment "elsewhere: no network of ours"',
        f'\t\t{ip} saddr . {ip} daddr @hairpins {nat} comment "hairpin: within one network"',
        "\t}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def listing(objects: Iterable[Mapping[str, Any]]) -> Listing:
    """What `nft.table` read, by part, to be compared with another reading: no handles, no counts."""
    parts: dict[str, tuple[object, ...]] = {}
    for thing in objects:
        ((kind, entry),) = thing.items()
        name = "" if kind == "table" else f" {entry['chain' if kind == 'rule' else 'name']}"
        part = f"{'chain' if kind == 'rule' else kind}{name}"
        parts[part] = (*parts.get(part, ()), _lasting(entry))
    return parts


def differences(family: str, found: Listing, wanted: Listing) -> list[str]:
    """How what was found differs from what shall be, a line each, as it is after it was mended."""
    if not found:
        return [f"nftables table {family} {TABLE} is there, was missing"]
    lines: list[str] = []
    for part in sorted({*found, *wanted}):
        kind, _, name = part.partition(" ")
        thing = f"nftables {kind} {family} {TABLE} {name}".rstrip()
        if part not in wanted:
            lines.append(f"{thing} is gone, was added")
        elif part not in found:
            lines.append(f"{thing} is there, was missing")
        elif found[part] != wanted[part]:
            lines.append(f"{thing} is as it must be, was changed")
    return lines


class SourceNat:
    """`Upkeep`: keeps the table as it must be, and says what of it somebody had changed.

    What must be is what the kernel itself listed after the last time it was written. A new process knows nothing of
    that, so it writes once; what was right already stays the same.
    """

    def __init__(
        self,
        pool: Network,
        local_networks: Iterable[Network] | None = None,
        find: Callable[[], Coroutine[Any, Any, frozenset[Network]]] = networks.read,
    ) -> None:
        """`local_networks` are whose hosts answer through this worker; None: found out at every audit."""
        self._pool = pool
        self._local_networks = None if local_networks is None else frozenset(local_networks)
        self._find = find
        self._script = ""
        self._left: Listing | None = None
        """What the last writing left behind; None: not known."""

    async def mend(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """See `Upkeep.mend`. A table that changes because the claims or the networks did is no repair."""
        rules = NatRules(self._pool, addresses, await self._local(), frozenset(claims.ports))
        script, known = render(rules), self._left
        found = await _read(rules.family)
        if found == known and script == self._script:
            return []
        self._left = None
        await nft.run(script)
        left = await _read(rules.family)
        if not left:
            raise HostError(f"nftables table {rules.family} {TABLE} went away as soon as it was made: who deletes it?")
        self._left, self._script = left, script
        return differences(rules.family, found, left if known is None else known)

    async def _local(self) -> frozenset[Network]:
        if self._local_networks is not None:
            return self._local_networks
        try:
            return await self._find()
        except OSError as error:
            raise HostError(
                f"the container networks of this host cannot be read: {error}; name them in [node] local_networks"
            ) from error

    async def remove(self) -> list[str]:
        """Delete our tables of both families and nothing else; the families of those that there were.

        Raises `HostError`.
        """
        there = [family for family in FAMILIES if await nft.table(family, TABLE) is not None]
        if there:
            await nft.run("".join(f"delete table {family} {TABLE}\n" for family in there))
        self._left = None
        return there


async def _read(family: str) -> Listing:
    return listing(await nft.table(family, TABLE) or ())


def _lasting(entry: Mapping[str, Any]) -> object:
    """Without handles and counts, which differ from one reading to the next; elements in one order."""
    kept = {key: value for key, value in entry.items() if key not in ("handle", "elem", "expr")}
    expressions = [{"counter": None} if "counter" in thing else thing for thing in entry.get("expr", ())]
    return kept | {"expr": expressions, "elem": sorted(map(repr, entry.get("elem", ())))}


def _set(name: str, kind: str, elements: Sequence[object], flag: str = "") -> list[str]:
    listed = ", ".join(str(element) for element in elements)
    return [
        f"\tset {name} {{",
        f"\t\ttype {kind}",
        *([f"\t\tflags {flag}"] if flag else []),
        *([f"\t\telements = {{ {listed} }}"] if listed else []),
        "\t}",
    ]


def _outermost(found: Iterable[Network]) -> list[Network]:
    """Without networks that lie in another one, which a set refuses; neighbours stay two, as their bridges are."""
    kept: list[Network] = []
    for network in sorted(found, key=lambda network: (network.network_address, network.prefixlen)):
        if not kept or network.network_address not in kept[-1]:
            kept.append(network)
    return kept
