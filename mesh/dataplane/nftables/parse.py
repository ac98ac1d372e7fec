"""Parses what `nft -j list table` prints into what is programmed."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mesh.dataplane.netlink import TRANSPORTS
from mesh.dataplane.nftables import statements as text
from mesh.dataplane.nftables.ruleset import SERVICES, BaseChains, ChainHook
from mesh.dataplane.nftables.service_chain import (
    FOREIGN_VALUE,
    ChainRule,
    ServiceChains,
    chain_name,
    chain_virtual_key,
    parse_virtual_server,
    service_chains,
)
from mesh.dataplane.nftables.statements import Json
from mesh.model.table import VirtualKey, VirtualServer


class ListingError(Exception):
    """The text is not what nft prints for a table."""


@dataclass(slots=True)
class RulesetListing:
    """A table as listed, before its chains are interpreted."""

    objects: dict[str, str] = field(default_factory=dict)
    """The data type of each set and map, by name."""
    timeouts: dict[str, int] = field(default_factory=dict)
    """Seconds after which elements expire, by name of the set; only sets with a timeout."""
    elements: list[Json] = field(default_factory=list)
    """The elements of the map of services."""
    hooks: dict[str, ChainHook] = field(default_factory=dict)
    """The hook of each base chain, by name of the chain."""
    chains: dict[str, list[ChainRule]] = field(default_factory=dict)
    """The rules of each chain, by name."""

    @classmethod
    def of(cls, listed: str) -> "RulesetListing":
        """Parse what nft has printed. Raises `ListingError`."""
        listing = cls()
        try:
            for item in json.loads(listed)["nftables"]:
                ((kind, content),) = item.items()
                listing._add(kind, content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ListingError(f"{type(error).__name__}: {error}") from error
        return listing

    def _add(self, kind: str, content: Json) -> None:
        match kind:
            case "set" | "map":
                name, kinds = content["name"], content["type"]
                self.objects[name] = kinds if isinstance(kinds, str) else " . ".join(kinds)
                if name == SERVICES:
                    self.elements = content.get("elem", [])
                if "timeout" in content:
                    self.timeouts[name] = content["timeout"]
            case "chain":
                self.chains.setdefault(content["name"], [])
                if "hook" in content:
                    # A chain of another type or policy gets a priority that is never ours, so that the base counts as
                    # changed.
                    priority = content["prio"] if (content["type"], content["policy"]) == ("nat", "accept") else 0
                    self.hooks[content["name"]] = ChainHook(content["hook"], priority)
            case "rule":
                rule = ChainRule(text.rule_text(content["expr"]), content.get("comment", ""))
                self.chains.setdefault(content["chain"], []).append(rule)


@dataclass(frozen=True, slots=True)
class RulesetState:
    """The programmed state of our table."""

    intact: bool
    """Whether the fixed part is as it must be."""
    hooks: frozenset[str] = frozenset()
    """The base chains that exist, in whatever state."""
    servers: Mapping[VirtualKey, VirtualServer] = field(default_factory=dict)
    """Every virtual server whose chain exists. Its persistence is `FOREIGN_VALUE` if any part of it differs from what
    we would write.
    """
    found: Mapping[VirtualKey, ServiceChains] = field(default_factory=dict)
    """The chains and sets of each virtual server."""
    understood: Mapping[VirtualKey, VirtualServer] = field(default_factory=dict)
    """The virtual server that the chains describe, without regard to the map and the fixed part."""
    mapped: Mapping[VirtualKey, str] = field(default_factory=dict)
    """The target in the map of services by key: the name of a chain, or another verdict as JSON."""


ABSENT_RULESET = RulesetState(intact=False)
"""The state without a table."""


def parse_state(listing: RulesetListing, wanted: BaseChains, before: RulesetState = ABSENT_RULESET) -> RulesetState:
    """Interpret a listing. `before` is an earlier state, whose unchanged chains are not interpreted again.

    A virtual server that packets cannot reach, because its element in the map or the fixed part was changed, is
    `FOREIGN_VALUE` like one whose own rules were changed.
    """
    found = _grouped(listing)
    mapped = dict(_mapped(listing.elements))
    intact = _intact(listing, wanted)
    understood = {
        key: before.understood[key] if own == before.found.get(key) else parse_virtual_server(key, own)
        for key, own in found.items()
    }
    hooks = frozenset(wanted.hooks.keys() & listing.chains.keys())
    return RulesetState(intact, hooks, _in_force(understood, mapped, intact=intact), found, understood, mapped)


def committed_state(
    before: RulesetState, changes: Mapping[VirtualKey, VirtualServer | None], wanted: BaseChains
) -> RulesetState:
    """Return the state after a successful transaction that set these virtual servers; None stands for a deleted one."""
    kept = before.found.keys() - changes.keys()
    made = {key: server for key, server in changes.items() if server is not None}
    found = {key: before.found[key] for key in kept} | {
        key: service_chains(key, server) for key, server in made.items()
    }
    understood = {key: before.understood[key] for key in kept} | made
    mapped = {key: to for key, to in before.mapped.items() if key not in changes}
    mapped |= {key: chain_name(key) for key in made}
    in_force = _in_force(understood, mapped, intact=True)
    return RulesetState(True, frozenset(wanted.hooks), in_force, found, understood, mapped)


def _in_force(
    understood: Mapping[VirtualKey, VirtualServer], mapped: Mapping[VirtualKey, str], *, intact: bool
) -> dict[VirtualKey, VirtualServer]:
    """Return the virtual servers, `FOREIGN_VALUE` if packets do not reach their chain."""
    return {
        key: server if intact and mapped.get(key) == chain_name(key) else replace(server, persistence=FOREIGN_VALUE)
        for key, server in understood.items()
    }


def _intact(listing: RulesetListing, wanted: BaseChains) -> bool:
    """Return whether the map and the base chains are as they must be."""
    return (
        listing.objects.get(SERVICES) == wanted.key
        and wanted.hooks.items() <= listing.hooks.items()
        and all(listing.chains.get(name) == list(wanted.rules) for name in wanted.hooks)
    )


def _grouped(listing: RulesetListing) -> dict[VirtualKey, ServiceChains]:
    """Group chains and sets by the virtual server in their names."""
    chains: dict[VirtualKey, dict[str, tuple[ChainRule, ...]]] = {}
    for name, rules in listing.chains.items():
        if key := chain_virtual_key(name):
            chains[key] = {name: tuple(rules)}
    clients: dict[VirtualKey, dict[str, int]] = {key: {} for key in chains}
    for name in listing.chains.keys() | listing.objects.keys():
        own, slash, _ = name.partition("/")
        key = chain_virtual_key(own) if slash else None
        if key in chains and name in listing.chains:
            chains[key][name] = tuple(listing.chains[name])
        if key in clients and name in listing.objects:
            clients[key][name] = listing.timeouts.get(name, 0)
    return {key: ServiceChains(chains[key], clients[key]) for key in chains}


def _mapped(elements: Iterable[Json]) -> Iterator[tuple[VirtualKey, str]]:
    """Yield the elements of the map of services; elements with an unknown protocol are left out."""
    for key, verdict in elements:
        address, protocol, port = key["concat"]
        transport = TRANSPORTS.get(text.protocol_number(protocol))
        if transport is not None:
            yield VirtualKey(address, port, transport), verdict.get("goto", {}).get("target", json.dumps(verdict))
