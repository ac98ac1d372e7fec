"""Writes and reads the table that counts the traffic of virtual servers. Pure.

    table ip vipmesh_count {
        set opened { ... counter; elements = { 10.112.0.7 . tcp . 80 counter packets 3 bytes 180 } }
        chain opened_prerouting { type nat hook prerouting priority -111; ip daddr . meta l4proto . th dport @opened }
    }

The kernel counts at elements of sets, and an element stays while its virtual server does: no change of real servers,
rules or settings resets it. The table is apart from the one that balances, which is written and compared without it.

* `opened` is looked up in chains of type nat, which only the first packet of a connection enters. Virtual servers
  without a real server are in `refusing`, since a refused connection was not opened.
* `received` and `sent` are looked up by every further packet, before its destination is translated and after its source
  is translated back: the only places where packets in both directions bear the address of the virtual server. Packets
  of untranslated connections cost one test of a flag.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesh.dataplane.netlink import TRANSPORTS
from mesh.dataplane.nftables.balancer import eligible_servers
from mesh.dataplane.nftables.ruleset import map_element
from mesh.dataplane.nftables.statements import Json, protocol_number
from mesh.model.table import TrafficCounters, VirtualKey, VirtualServer

COUNTER_TABLE = "vipmesh_count"
"""The name of the table."""
_OPENED, _RECEIVED, _SENT, _REFUSING = "opened", "received", "sent", "refusing"
_COUNTED = (_OPENED, _RECEIVED, _SENT)
"""The sets whose elements count."""

# nat hooks translate destinations at -100 and sources at 100, and connections are tracked at -200
# (linux/netfilter_ipv4.h). The chains of the balancer are at -110, and the first translation ends the evaluation.
_BEFORE_BALANCER, _BEFORE_NAT, _AFTER_NAT = -111, -150, 150


class CounterListingError(Exception):
    """The text is not what nft prints for the table."""


@dataclass(frozen=True, slots=True)
class CounterListing:
    """The table as nft lists it."""

    counters: Mapping[str, Mapping[VirtualKey, tuple[int, int]]] = field(default_factory=dict)
    """Packets and bytes of each virtual server by name of the set; empty without sets."""
    refusing: frozenset[VirtualKey] = frozenset()
    """Virtual servers that refuse connections."""
    fixed: tuple[str, ...] = ()
    """Chains, rules and the declarations of sets, as JSON without handles and elements."""

    def traffic(self, key: VirtualKey) -> TrafficCounters:
        """Return the traffic of a virtual server; all 0 if it is not listed."""
        opened, first = self._count(_OPENED, key)
        # The first packet of a connection is counted by `opened` only: its connection is not translated yet.
        return TrafficCounters(opened, first + self._count(_RECEIVED, key)[1], self._count(_SENT, key)[1])

    def is_complete(self, key: VirtualKey) -> bool:
        """Return whether everything about a virtual server is counted."""
        return all(key in self.counters.get(name, {}) for name in _COUNTED)

    def keys(self) -> set[VirtualKey]:
        """Return every virtual server that has an element in any set."""
        return set(self.refusing).union(*self.counters.values())

    def _count(self, name: str, key: VirtualKey) -> tuple[int, int]:
        return self.counters.get(name, {}).get(key, (0, 0))


def counter_script(version: int) -> list[str]:
    """Return the commands that set up the table for an IP version. Elements and their counters stay as they are."""
    ip = _family(version)
    table = f"{ip} {COUNTER_TABLE}"
    kind = f"{'ipv6_addr' if version == 6 else 'ipv4_addr'} . inet_proto . inet_service"
    lines = [f"add table {table}", f"add set {table} {_REFUSING} {{ type {kind}; }}"]
    lines += [f"add set {table} {name} {{ type {kind}; counter; }}" for name in _COUNTED]
    to, of = (f"{ip} {end}addr . meta l4proto . th {end}port" for end in "ds")
    opened = f"{to} != @{_REFUSING} {to} @{_OPENED}"
    received, sent = (
        f"ct direction {direction} ct status dnat {end} @{name}"
        for direction, end, name in (("original", to, _RECEIVED), ("reply", of, _SENT))
    )
    chains = [
        (_OPENED, "prerouting", "nat", _BEFORE_BALANCER, opened),
        (_OPENED, "output", "nat", _BEFORE_BALANCER, opened),
        (_RECEIVED, "prerouting", "filter", _BEFORE_NAT, received),
        (_RECEIVED, "output", "filter", _BEFORE_NAT, received),
        (_SENT, "postrouting", "filter", _AFTER_NAT, sent),
        # Packets on the loopback interface leave by postrouting and enter by input, and are counted once.
        (_SENT, "input", "filter", _AFTER_NAT, f'iifname != "lo" {sent}'),
    ]
    for name, hook, type_, priority, rule in chains:
        chain = f"{table} {name}_{hook}"
        lines.append(f"add chain {chain} {{ type {type_} hook {hook} priority {priority}; policy accept; }}")
        lines += [f"flush chain {chain}", f"add rule {chain} {rule}"]
    return lines


def count_commands(version: int, key: VirtualKey, server: VirtualServer | None) -> list[str]:
    """Return the commands that let a virtual server be counted from now on, or no longer if it is None.

    An element that is there already keeps its counter.
    """
    table = f"{_family(version)} {COUNTER_TABLE}"
    element = f"{{ {map_element(key)} }}"
    lines = [f"add element {table} {name} {element}" for name in (*_COUNTED, _REFUSING)]
    # nft refuses to delete an element that is missing, and adding one that is there does nothing.
    if server is None:
        lines += [f"delete element {table} {name} {element}" for name in (*_COUNTED, _REFUSING)]
    elif eligible_servers(server):
        lines.append(f"delete element {table} {_REFUSING} {element}")
    return lines


def is_counted_alike(before: VirtualServer | None, after: VirtualServer | None) -> bool:
    """Return whether a change of a virtual server leaves its elements as they are."""
    return before is not None and after is not None and bool(eligible_servers(before)) == bool(eligible_servers(after))


def repair_commands(version: int, listing: CounterListing, servers: Mapping[VirtualKey, VirtualServer]) -> list[str]:
    """Return the commands that make the elements those of the virtual servers; empty if they are."""
    due = dict.fromkeys(listing.keys() - servers.keys())
    wrong = {
        key: server
        for key, server in servers.items()
        if not listing.is_complete(key) or (key in listing.refusing) == bool(eligible_servers(server))
    }
    return [line for key, server in (due | wrong).items() for line in count_commands(version, key, server)]


def parse_counters(listed: str) -> CounterListing:
    """Parse what `nft -j list table` prints. Raises `CounterListingError`."""
    counters: dict[str, dict[VirtualKey, tuple[int, int]]] = {}
    refusing: Collection[VirtualKey] = ()
    fixed = []
    try:
        for item in json.loads(listed)["nftables"]:
            ((kind, content),) = item.items()
            if kind == "set":
                elements = list(_elements(content.pop("elem", [])))
                if content["name"] == _REFUSING:
                    refusing = [key for key, _ in elements]
                else:
                    counters[content["name"]] = dict(elements)
            if kind in ("set", "chain", "rule"):
                content.pop("handle", None)
                fixed.append(json.dumps(item, sort_keys=True))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CounterListingError(f"{type(error).__name__}: {error}") from error
    return CounterListing(counters, frozenset(refusing), tuple(sorted(fixed)))


def _elements(listed: Iterable[Json]) -> Iterator[tuple[VirtualKey, tuple[int, int]]]:
    """Yield the key of each element with its packets and bytes; elements with an unknown protocol are left out."""
    for element in listed:
        content = element.get("elem", {"val": element})
        address, protocol, port = content["val"]["concat"]
        transport = TRANSPORTS.get(protocol_number(protocol))
        counter = content.get("counter") or {"packets": 0, "bytes": 0}
        if transport is not None:
            yield VirtualKey(address, port, transport), (counter["packets"], counter["bytes"])


def _family(version: int) -> str:
    return "ip6" if version == 6 else "ip"
