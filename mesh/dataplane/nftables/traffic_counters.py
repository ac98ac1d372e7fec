"""Writes and reads the table that counts the traffic of real servers and virtual servers. Pure.

    table ip vipmesh_count {
        set opened { ... counter; elements = { 10.112.0.7 . tcp . 80 . 10.2.0.1 . 8080 counter packets 3 bytes 180 } }
        chain opened_postrouting {
            type nat hook postrouting priority -111
            ct status dnat ct original ip daddr . meta l4proto . ct original proto-dst . ip daddr . tcp dport @opened
        }
    }

The kernel counts at elements of sets, one for each real server behind each virtual server. An element stays while its
real server does: no change of other real servers, weights, rules or settings resets it. The table is apart from the one
that balances, which is written and compared without it.

* `opened` is looked up in chains of type nat, which only the first packet of a connection enters, and after its
  destination is translated: a connection that is refused or filtered on this host does not get there.
* `received` and `sent` are looked up by every further packet, before its destination is translated and after its source
  is translated back: the only places where packets in both directions bear the address of the virtual server. The real
  server is known from the connection. Packets of untranslated connections cost one test of a flag.

Each virtual server has one element more in each set, which no packet matches: it holds the counts of its former real
servers, so that the counts of the virtual server are the sum of its elements.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.dataplane.drain import BackendKey
from mesh.dataplane.nftables.service_chain import FOREIGN_VALUE
from mesh.model.table import RealKey, TrafficCounters, VirtualKey, VirtualServer

COUNTER_TABLE = "vipmesh_count"
"""The name of the table."""
_OPENED, _RECEIVED, _SENT = "opened", "received", "sent"
COUNTER_SETS = (_OPENED, _RECEIVED, _SENT)
"""The sets whose elements count."""

# nat hooks translate destinations at -100 and sources at 100, and connections are tracked at -200
# (linux/netfilter_ipv4.h). The first translation of the source ends the evaluation of chains of type nat.
_BEFORE_OTHERS, _BEFORE_NAT, _AFTER_NAT = -111, -150, 150


class CounterListingError(Exception):
    """The text is not what nft prints for the table."""


@dataclass(frozen=True, slots=True)
class CounterListing:
    """The table as it was read."""

    counters: Mapping[str, Mapping[BackendKey, tuple[int, int]]] = field(default_factory=dict)
    """Packets and bytes of each element by name of the set; empty without sets."""

    def totals(self) -> Mapping[VirtualKey, TrafficCounters]:
        """Return the traffic of each virtual server that has elements, former real servers included."""
        found: dict[VirtualKey, list[int]] = {}
        for name, place in ((_OPENED, 1), (_RECEIVED, 1), (_SENT, 2)):
            for (key, _), (packets, size) in self.counters.get(name, {}).items():
                sums = found.setdefault(key, [0, 0, 0])
                sums[place] += size
                if name == _OPENED:
                    sums[0] += packets
        return {key: TrafficCounters(*sums) for key, sums in found.items()}

    def traffic(self, backend: BackendKey) -> TrafficCounters:
        """Return the traffic of a real server; all 0 if it is not listed."""
        opened, first = self._count(_OPENED, backend)
        # The first packet of a connection is counted by `opened` only: its connection is not translated yet.
        return TrafficCounters(opened, first + self._count(_RECEIVED, backend)[1], self._count(_SENT, backend)[1])

    def backends(self) -> set[BackendKey]:
        """Return every real server that has an element in any set."""
        return set[BackendKey]().union(*self.counters.values())

    def lacks(self, backend: BackendKey) -> bool:
        """Return whether a set lacks the element of a real server."""
        return any(backend not in self.counters.get(name, {}) for name in COUNTER_SETS)

    def former(self, version: int, key: VirtualKey, gone: Iterable[BackendKey]) -> Mapping[str, tuple[int, int]]:
        """Return what the element of former real servers holds, by set, once that of `gone` is added."""
        backends = [(key, former_real_server(version)), *gone]
        return {
            name: (
                sum(self._count(name, backend)[0] for backend in backends),
                sum(self._count(name, backend)[1] for backend in backends),
            )
            for name in COUNTER_SETS
        }

    def _count(self, name: str, backend: BackendKey) -> tuple[int, int]:
        return self.counters.get(name, {}).get(backend, (0, 0))


@dataclass(frozen=True, slots=True)
class CounterFrame:
    """The table without the elements of its sets."""

    fixed: tuple[str, ...] = ()
    """Chains, rules and the declarations of sets, as JSON without handles."""
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The data types of the key of each set."""

    def fits(self, version: int) -> bool:
        """Return whether the sets that are there are ones that we would make; another version makes others."""
        return all(name in COUNTER_SETS and types == _key_types(version) for name, types in self.types.items())


@dataclass(frozen=True, slots=True)
class CounterStep:
    """Elements that are added to every set, or deleted from it."""

    backends: Sequence[BackendKey]
    """What the elements stand for."""
    deleted: bool = False
    """Whether the elements are deleted. An element that is added and there already keeps its counter."""
    counts: Mapping[str, tuple[int, int]] | None = None
    """Packets and bytes that the elements begin with, by set; None for 0."""


@dataclass(frozen=True, slots=True)
class CounterChange:
    """What has to happen to the elements of one virtual server, all of it or nothing."""

    key: VirtualKey
    """The virtual server."""
    steps: tuple[CounterStep, ...]
    """The steps in order."""


def former_real_server(version: int) -> RealKey:
    """Return what stands for all former real servers of a virtual server: an address that no packet has."""
    return RealKey("::" if version == 6 else "0.0.0.0", 0)


def counter_script(version: int) -> list[str]:
    """Return the commands that set up the table for an IP version. Elements and their counters stay as they are."""
    ip = _family(version)
    table = f"{ip} {COUNTER_TABLE}"
    kind = " . ".join(_key_types(version))
    lines = [f"add table {table}"]
    lines += [f"add set {table} {name} {{ type {kind}; counter; }}" for name in COUNTER_SETS]
    real = f"ct reply {ip} saddr . ct reply proto-src"
    opened = (
        f"ct status dnat ct original {ip} daddr . meta l4proto . ct original proto-dst . {ip} daddr"
        f" . {{}} dport @{_OPENED}"
    )
    received = f"ct direction original ct status dnat {ip} daddr . meta l4proto . {{}} dport . {real} @{_RECEIVED}"
    sent = f"ct direction reply ct status dnat {ip} saddr . meta l4proto . {{}} sport . {real} @{_SENT}"
    chains = [
        (_OPENED, "postrouting", "nat", _BEFORE_OTHERS, opened),
        (_OPENED, "input", "nat", _BEFORE_OTHERS, opened),
        (_RECEIVED, "prerouting", "filter", _BEFORE_NAT, received),
        (_RECEIVED, "output", "filter", _BEFORE_NAT, received),
        (_SENT, "postrouting", "filter", _AFTER_NAT, sent),
        # Packets on the loopback interface leave by postrouting and enter by input, and are counted once.
        (_SENT, "input", "filter", _AFTER_NAT, f'iifname != "lo" {sent}'),
    ]
    for name, hook, type_, priority, rule in chains:
        chain = f"{table} {name}_{hook}"
        lines.append(f"add chain {chain} {{ type {type_} hook {hook} priority {priority}; policy accept; }}")
        lines.append(f"flush chain {chain}")
        # nft knows the size of a port only where the transport is known.
        lines += [
            f"add rule {chain} meta l4proto {transport} {rule.format(transport)}"
            for transport in ("tcp", "udp", "sctp")
        ]
    return lines


def delete_command(version: int) -> str:
    """Return the command that deletes the table, which must exist."""
    return f"delete table {_family(version)} {COUNTER_TABLE}"


def count_change(
    version: int, key: VirtualKey, before: VirtualServer | None, after: VirtualServer | None
) -> CounterChange | None:
    """Return the change that lets the real servers of a virtual server be counted, or no longer if `after` is None.

    None if nothing is to be done. An element that is there already keeps its counter. Elements of real servers that
    leave stay: their counts are added to those of former real servers by `repair_changes`.
    """
    former = former_real_server(version)
    if after is None:
        reals = [] if before is None else sorted(before.real_servers)
        steps = _deletion([(key, real) for real in (former, *reals)])
    else:
        new = [former, *sorted(after.real_servers)] if before is None else sorted(_new_real_servers(before, after))
        steps = (CounterStep([(key, real) for real in new]),) if new else ()
    return CounterChange(key, steps) if steps else None


def is_counted_alike(before: VirtualServer | None, after: VirtualServer | None) -> bool:
    """Return whether a change of a virtual server leaves its elements as they are."""
    return before is not None and after is not None and not _new_real_servers(before, after)


def repair_changes(
    version: int, listing: CounterListing, servers: Mapping[VirtualKey, VirtualServer]
) -> list[CounterChange]:
    """Return the changes that make the elements those of the virtual servers; empty if they are."""
    former = former_real_server(version)
    wanted = {(key, real) for key, server in servers.items() for real in (former, *server.real_servers)}
    missing = _by_server(backend for backend in wanted if listing.lacks(backend))
    changes = [CounterChange(key, (CounterStep(backends),)) for key, backends in missing.items()]
    for key, backends in _by_server(listing.backends() - wanted).items():
        server = servers.get(key)
        if server is None:
            changes.append(CounterChange(key, _deletion(backends)))
        elif server.persistence != FOREIGN_VALUE:  # then its real servers are not known before it is repaired
            held = CounterStep([(key, former)], counts=listing.former(version, key, backends))
            changes.append(CounterChange(key, (*_deletion([*backends, (key, former)]), held)))
    return changes


def parse_frame(listed: str) -> CounterFrame:
    """Parse what `nft -j -t list table` prints. Raises `CounterListingError`."""
    fixed = []
    types: dict[str, tuple[str, ...]] = {}
    try:
        for item in json.loads(listed)["nftables"]:
            ((kind, content),) = item.items()
            if kind == "set":
                content.pop("elem", None)
                of = content["type"]
                types[content["name"]] = (of,) if isinstance(of, str) else tuple(of)
            if kind in ("set", "chain", "rule"):
                content.pop("handle", None)
                fixed.append(json.dumps(item, sort_keys=True))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CounterListingError(f"{type(error).__name__}: {error}") from error
    return CounterFrame(tuple(sorted(fixed)), types)


def _new_real_servers(before: VirtualServer, after: VirtualServer) -> Collection[RealKey]:
    return after.real_servers.keys() - before.real_servers.keys()


def _deletion(backends: Sequence[BackendKey]) -> tuple[CounterStep, ...]:
    # The kernel refuses to delete an element that is missing, and adding one that is there does nothing.
    return CounterStep(backends), CounterStep(backends, deleted=True)


def _by_server(backends: Iterable[BackendKey]) -> dict[VirtualKey, list[BackendKey]]:
    """Return sorted real servers by their virtual server."""
    found: dict[VirtualKey, list[BackendKey]] = {}
    for backend in sorted(backends):
        found.setdefault(backend[0], []).append(backend)
    return found


def _key_types(version: int) -> tuple[str, ...]:
    address = "ipv6_addr" if version == 6 else "ipv4_addr"
    return address, "inet_proto", "inet_service", address, "inet_service"


def _family(version: int) -> str:
    return "ip6" if version == 6 else "ip"
