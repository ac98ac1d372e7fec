"""Reads what the firewall of this host does from the listings of iptables-save(8) and nft(8). Pure.

The rules of the container engine are the source for what an operator asked to isolate: its rules for an `--internal`
network drop what enters and leaves the network's bridge, and those for other networks accept what leaves it.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from typing_extensions import override

USER_CHAIN = "DOCKER-USER"
"""The chain that the engine leaves to the operator of the host."""
ENGINE_TABLE = "docker-bridges"
"""The engine's nftables table, with its nftables backend."""
OWN_TABLES = "vipmesh"
"""How the names of our own nftables tables begin."""

_UFW_CHAIN = "ufw-before-forward"
_FIREWALLD_TABLE = "firewalld"
_ENGINE_CHAIN = re.compile(r"FORWARD|DOCKER(?!-USER$).*")
_TABLE = re.compile(r"^table (?P<family>\w+) (?P<name>\S+) \{(?P<body>.*?)^\}", re.MULTILINE | re.DOTALL)
_CHAIN = re.compile(r"^\tchain (?P<name>\S+) \{(?P<body>.*?)^\t\}", re.MULTILINE | re.DOTALL)
_HOOK = re.compile(r"type filter hook (?P<hook>forward|input) priority .*policy drop;")
_FORWARD_CHAIN = re.compile(r"filter-forward-(?P<direction>in|out)__(?P<bridge>\S+)")
_DROPS_DIRECT = re.compile(r"ip6? daddr \S+ iifname != [^\n]*\bdrop\b")
_NUMBER = r"0x[0-9a-f]{1,8}|\d{1,9}"
_ACCEPT_MARK = re.compile(rf"(?:meta )?mark (?:(?:&|and) (?P<mask>{_NUMBER}) == )?(?P<mark>{_NUMBER}) .*\baccept\b")


class Backend(StrEnum):
    """The part of the kernel that holds the rules of iptables. A rule in one does not outweigh a drop in the other."""

    NFT = "nft"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class IptablesRule:
    """A rule of a chain, as iptables-save prints it."""

    words: tuple[str, ...]
    """The words after the name of the chain: `-m`, `mark`, ..."""

    def option(self, name: str) -> tuple[str, bool] | None:
        """Return the value of an option and whether it is negated (`! -i docker0`); None if it is not given."""
        for place, word in enumerate(self.words[:-1]):
            if word == name:
                return self.words[place + 1], place > 0 and self.words[place - 1] == "!"
        return None

    @property
    def target(self) -> str:
        """The chain or verdict that the rule leads to; empty if it has none."""
        found = self.option("-j") or self.option("-g")
        return "" if found is None else found[0]

    @property
    def comment(self) -> str:
        """The comment; empty if there is none."""
        found = self.option("--comment")
        return "" if found is None else found[0]

    @property
    def is_unconditional(self) -> bool:
        """Whether the rule applies to every packet."""
        return not {"-i", "-o", "-s", "-d", "-p", "-m", "-f"} & set(self._without_comment())

    def _without_comment(self) -> tuple[str, ...]:
        if ("-m", "comment") not in zip(self.words, self.words[1:], strict=False):
            return self.words
        at = self.words.index("comment")
        return self.words[: at - 1] + self.words[at + 1 :]


@dataclass(frozen=True, slots=True)
class IptablesFilter:
    """The table `filter` of one backend, or another one."""

    policies: Mapping[str, str] = field(default_factory=dict)
    """The policy of each built-in chain: `DROP` or `ACCEPT`."""
    chains: Mapping[str, tuple[IptablesRule, ...]] = field(default_factory=dict)
    """The rules of every chain; empty if there is no such table."""

    @property
    def user_chain(self) -> tuple[IptablesRule, ...] | None:
        """The rules of `DOCKER-USER`; None if there is no such chain."""
        return self.chains.get(USER_CHAIN)

    def drops(self, chain: str) -> bool:
        """Return whether a built-in chain drops what none of its rules accepts."""
        return self.policies.get(chain) == "DROP"

    @property
    def has_ufw(self) -> bool:
        """Whether ufw is active."""
        return any(rule.target == _UFW_CHAIN for rule in self.chains.get("FORWARD", ()))

    def every_rule(self) -> Iterator[tuple[str, IptablesRule]]:
        """Yield each rule with the name of its chain."""
        for chain, rules in self.chains.items():
            for rule in rules:
                yield chain, rule


@dataclass(frozen=True, slots=True)
class AcceptMark:
    """The mark of packets that are let through: `packet mark & mask == value`."""

    value: int
    mask: int

    @override
    def __str__(self) -> str:
        return f"{self.value:#x}/{self.mask:#x}"


@dataclass(frozen=True, slots=True)
class DroppingChain:
    """A base chain of nftables, of neither ours nor iptables, that drops what none of its rules accepts."""

    table: str
    """The family and the name of its table: `inet filter`."""
    name: str
    hook: str
    """`forward` or `input`."""
    rules: str
    """Its listing."""


@dataclass(frozen=True, slots=True)
class FirewallTexts:
    """The listings of one address family, and what could not be listed."""

    saves: Mapping[Backend, str] = field(default_factory=dict)
    """The output of iptables-save, by backend; without a backend that cannot be read."""
    failures: Mapping[Backend, str] = field(default_factory=dict)
    """Why a backend cannot be read."""
    legacy_in_use: bool | None = False
    """Whether the kernel holds legacy rules in this network namespace; None if this user may not know."""
    nft: str = ""
    """`nft list table` of every table that is not ours, one after the other."""
    bridges: Mapping[str, int] = field(default_factory=dict)
    """The bridges of this host, with the index of each interface."""
    links: frozenset[int] = frozenset()
    """The indexes of all other interfaces, without the ports of bridges."""
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The host's own addresses on each bridge, with the length of the prefix: `10.5.0.254/24`."""


@dataclass(frozen=True, slots=True)
class FirewallFacts:
    """What the firewall of this host does, for one address family."""

    filters: Mapping[Backend, IptablesFilter] = field(default_factory=dict)
    """The filter table of each backend that can be read."""
    failures: Mapping[Backend, str] = field(default_factory=dict)
    """Why a backend that holds rules cannot be read."""
    has_engine_table: bool = False
    """Whether the engine filters by its own nftables table, so that no rule elsewhere can accept anything."""
    accept_mark: AcceptMark | None = None
    """The value of `bridge-accept-fwmark` in that table; None if it is not set."""
    open_bridges: frozenset[str] = frozenset()
    """Bridges of networks that the engine lets out."""
    internal_bridges: frozenset[str] = frozenset()
    """Bridges of `--internal` networks."""
    silent_bridges: frozenset[str] = frozenset()
    """Bridges whose containers may not reach one another (`enable_icc=false`)."""
    links: frozenset[int] = frozenset()
    """The indexes of the interfaces that are neither bridges nor their ports."""
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The host's own addresses on each bridge, with the length of the prefix: `10.5.0.254/24`."""
    raw: Mapping[Backend, IptablesFilter] = field(default_factory=dict)
    """The table `raw` of each backend that can be read."""
    nat: Mapping[Backend, IptablesFilter] = field(default_factory=dict)
    """The table `nat` of each backend that can be read."""
    engine_raw: tuple[str, ...] = ()
    """The rules of the engine's nftables table that drop before routing, without anything else of that chain."""
    engine_entries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The rules of that table for what enters a bridge, by bridge."""
    has_firewalld: bool = False
    """Whether firewalld runs."""
    dropping: tuple[DroppingChain, ...] = ()
    """Other base chains that drop by default."""
    nft: str = ""
    """The listing of nftables that these facts are from."""

    @property
    def has_ufw(self) -> bool:
        """Whether ufw is active."""
        return any(table.has_ufw for table in self.filters.values())

    @property
    def drops_direct(self) -> bool:
        """Whether the engine drops what other hosts send to containers' own addresses, whichever port it is for."""
        rules = (rule for table in self.raw.values() for rule in table.chains.get("PREROUTING", ()))
        return bool(self.engine_raw) or any(
            rule.target == "DROP" and rule.option("-d") is not None and (rule.option("-i") or ("", False))[1]
            for rule in rules
        )

    @property
    def filters_forwarded(self) -> bool:
        """Whether anything on this host may drop what is forwarded. Without a firewall, a mark only costs time."""
        return (
            self.has_engine_table
            or bool(self.failures)
            or any(table.user_chain is not None or table.drops("FORWARD") for table in self.filters.values())
            or any(chain.hook == "forward" for chain in self.dropping)
        )

    def drops(self, chain: str) -> bool:
        """Return whether a built-in chain of iptables drops by default, in any backend."""
        return any(table.drops(chain) for table in self.filters.values())


def read_facts(texts: FirewallTexts, version: int) -> FirewallFacts:
    """Return the facts of one address family; `version` is its IP version. Text that is not understood is left out."""
    filters = {backend: parse_filter(save) for backend, save in texts.saves.items()}
    tables = [(match["family"], match["name"], match["body"]) for match in _TABLE.finditer(texts.nft)]
    families = ("inet", "ip6" if version == 6 else "ip")
    engine = [body for family, name, body in tables if name == ENGINE_TABLE and family == families[1]]
    by_chain = [_engine_chains(body) for body in engine]
    rules = [rule for table in filters.values() for chain, rule in table.every_rule() if _ENGINE_CHAIN.fullmatch(chain)]
    listed = dict(_failures(texts, tables))
    return FirewallFacts(
        filters=filters,
        failures=listed,
        has_engine_table=bool(engine),
        accept_mark=next((mark for chains in by_chain for mark in _accept_marks(chains)), None),
        open_bridges=frozenset(_open_bridges(rules)) | {b for chains in by_chain for b in _open_chains(chains)},
        internal_bridges=frozenset(_internal_bridges(rules))
        | {b for chains in by_chain for b in _internal_chains(chains)},
        silent_bridges=frozenset(_silent_bridges(rules)) | {b for chains in by_chain for b in _silent_chains(chains)},
        links=texts.links,
        networks=texts.networks,
        raw={backend: parse_table(save, "raw") for backend, save in texts.saves.items()},
        nat={backend: parse_table(save, "nat") for backend, save in texts.saves.items()},
        engine_raw=tuple(match[0] for body in engine for match in _DROPS_DIRECT.finditer(body)),
        engine_entries={
            bridge: rules for chains in by_chain for (direction, bridge), rules in chains.items() if direction == "in"
        },
        has_firewalld=any(name == _FIREWALLD_TABLE for _, name, _ in tables),
        dropping=tuple(_dropping_chains(tables, families, by_iptables=Backend.NFT in filters)),
        nft=texts.nft,
    )


def parse_filter(save: str) -> IptablesFilter:
    """Return the filter table in the output of iptables-save; an empty one if there is none."""
    return parse_table(save, "filter")


def parse_table(save: str, table: str) -> IptablesFilter:
    """Return a table in the output of iptables-save; an empty one if there is none."""
    policies: dict[str, str] = {}
    chains: dict[str, list[IptablesRule]] = {}
    for line in _table_lines(save, table):
        if line.startswith(":"):
            name, _, rest = line[1:].partition(" ")
            chains[name] = []
            policy = rest.partition(" ")[0]
            if policy != "-":
                policies[name] = policy
        elif line.startswith("-A ") and len(words := _words(line)) > 1:
            chains.setdefault(words[1], []).append(IptablesRule(tuple(words[2:])))
    return IptablesFilter(policies, {name: tuple(rules) for name, rules in chains.items()})


def _table_lines(save: str, table: str) -> Iterator[str]:
    inside = False
    for line in save.splitlines():
        if line.startswith("*"):
            inside = line[1:].strip() == table
        elif inside:
            yield line


def _words(line: str) -> list[str]:
    """Return the words of a rule. Only lines with quotes need the slow way."""
    if '"' not in line:
        return line.split()
    try:
        return shlex.split(line)
    except ValueError:  # a quote without an end
        return line.split()


def _failures(texts: FirewallTexts, tables: Iterable[tuple[str, str, str]]) -> Iterator[tuple[Backend, str]]:
    """Yield the backends that cannot be read although they hold rules of the engine, or may hold some."""
    in_nft = any(name == "filter" and f"chain {USER_CHAIN} " in body for _, name, body in tables)
    elsewhere = in_nft or f":{USER_CHAIN} " in texts.saves.get(Backend.NFT, "") or ENGINE_TABLE in texts.nft
    if Backend.LEGACY in texts.failures and (texts.legacy_in_use or not elsewhere):
        yield Backend.LEGACY, texts.failures[Backend.LEGACY]
    if Backend.NFT in texts.failures and in_nft:
        yield Backend.NFT, texts.failures[Backend.NFT]


def _open_bridges(rules: Iterable[IptablesRule]) -> Iterator[str]:
    """Yield bridges that the engine lets out: `-i br-a ! -o br-a -j ACCEPT`, and without `-o` from Docker 28 on."""
    for rule in rules:
        into, out = rule.option("-i"), rule.option("-o")
        if rule.target != "ACCEPT" or into is None or into[1] or {"-s", "-d", "-p", "-m"} & set(rule.words):
            continue
        if out is None or out == (into[0], True):
            yield into[0]


def _internal_bridges(rules: Iterable[IptablesRule]) -> Iterator[str]:
    """Yield bridges of internal networks: `! -s 172.20.0.0/16 -o br-b -j DROP` and the same for what leaves them."""
    for rule in rules:
        for address, interface in (("-s", "-o"), ("-d", "-i")):
            network, bridge = rule.option(address), rule.option(interface)
            if rule.target == "DROP" and network is not None and network[1] and bridge is not None and not bridge[1]:
                yield bridge[0]


def _silent_bridges(rules: Iterable[IptablesRule]) -> Iterator[str]:
    for rule in rules:
        into, out = rule.option("-i"), rule.option("-o")
        if rule.target == "DROP" and into is not None and into == out and not into[1]:
            yield into[0]


def _engine_chains(body: str) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Return the rules of the engine's forward chains, by direction (`in`, `out`) and bridge."""
    found = {}
    for chain in _CHAIN.finditer(body):
        name = _FORWARD_CHAIN.fullmatch(chain["name"].strip('"'))
        if name is not None:
            rules = tuple(line.strip() for line in chain["body"].splitlines() if line.strip())
            found[name["direction"], name["bridge"]] = rules
    return found


def _open_chains(chains: Mapping[tuple[str, str], tuple[str, ...]]) -> Iterator[str]:
    for (direction, bridge), rules in chains.items():
        if direction == "out" and any(re.match(r"(counter .*)?accept\b", rule) for rule in rules):
            yield bridge


def _internal_chains(chains: Mapping[tuple[str, str], tuple[str, ...]]) -> Iterator[str]:
    for (direction, bridge), rules in chains.items():
        if direction == "out" and any(re.match(r"oifname != \S+ .*\bdrop\b", rule) for rule in rules):
            yield bridge


def _silent_chains(chains: Mapping[tuple[str, str], tuple[str, ...]]) -> Iterator[str]:
    for (direction, bridge), rules in chains.items():
        if direction == "in" and any(re.search(r'\bdrop comment "ICC"', rule) for rule in rules):
            yield bridge


def _accept_marks(chains: Mapping[tuple[str, str], tuple[str, ...]]) -> Iterator[AcceptMark]:
    for (direction, _), rules in chains.items():
        for match in map(_ACCEPT_MARK.match, rules if direction == "in" else ()):
            if match is not None:
                yield AcceptMark(int(match["mark"], 0), int(match["mask"] or "0xffffffff", 0))


def _dropping_chains(
    tables: Iterable[tuple[str, str, str]], families: Iterable[str], *, by_iptables: bool
) -> Iterator[DroppingChain]:
    known = {ENGINE_TABLE, _FIREWALLD_TABLE}
    for family, name, body in tables:
        # iptables keeps its rules in the table `filter` of ip and ip6, which iptables-save has listed.
        if family not in families or name in known or name.startswith(OWN_TABLES):
            continue
        if by_iptables and name == "filter" and family != "inet":
            continue
        for chain in _CHAIN.finditer(body):
            hook = _HOOK.search(chain["body"])
            if hook is not None:
                yield DroppingChain(f"{family} {name}", chain["name"], hook["hook"], chain["body"])
