"""Decides what the firewall of this host needs: facts become rules of ours, or problems with a line to type. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_interface

from mesh.config.settings import FirewallMode
from mesh.host.firewall import advice
from mesh.host.firewall.advice import OpenedAddresses, iptables_program
from mesh.host.firewall.direct_access import DirectEndpoint, direct_access_problems
from mesh.host.firewall.facts import (
    USER_CHAIN,
    AcceptMark,
    Backend,
    DroppingChain,
    FirewallFacts,
    IptablesFilter,
    IptablesRule,
)
from mesh.host.firewall.isolation import IsolatedNetwork
from mesh.host.firewall.marking import DEFAULT_MARK, MarkingRules
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Transport

COMMENT = "vipmesh"
"""The comment of our rules: what has it is ours."""
SETTLED_AFTER = 5.0
"""Seconds after which a bridge that no rule of the engine mentions counts as none of the engine's."""
_FINAL = frozenset({"ACCEPT", "DROP", "REJECT", "RETURN"})


@dataclass(frozen=True, slots=True)
class FirewallDemand:
    """What this worker needs the firewall to let through, beside the settings."""

    addresses: frozenset[Address] = frozenset()
    """The worker's own addresses."""
    ports: frozenset[tuple[Transport, int]] = frozenset()
    """The published ports that lead to services on this worker."""
    needed: bool = False
    """Whether there are services, or connections that still drain."""
    direct: frozenset[DirectEndpoint] = frozenset()
    """Where other workers reach endpoints of this one; empty without other workers."""
    senders: frozenset[Address] = frozenset()
    """The addresses of other workers, as far as they are known."""


@dataclass(frozen=True, slots=True)
class FirewallSettings:
    """The settings that the firewall depends on."""

    opened: OpenedAddresses
    mode: FirewallMode
    forwards: bool
    """Whether the kernel forwards; a proxy in user space needs what reaches the host itself, and nothing forwarded."""
    takes_input: bool
    """Whether requests for VIPs and published ports arrive at the host itself: under IPVS, and in user space."""


class BridgeAccess(Enum):
    """Whether other networks may talk to the network of a bridge."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"
    """No rule mentions it so far: the engine may be about to write them."""


@dataclass(frozen=True, slots=True)
class BridgeRecord:
    """What is known of one bridge."""

    access: BridgeAccess
    since: float
    """The loop time, in seconds, at which it was seen first."""


Bridges = Mapping[tuple[str, int], BridgeRecord]
"""What is known of every bridge, by name and interface index."""


def update_bridges(before: Bridges | None, present: Mapping[str, int], facts: FirewallFacts, now: float) -> Bridges:
    """Return what is known of the bridges that are there now; `before` is None at the first look.

    A verdict stays until a rule says otherwise: while the engine restarts, its rules are missing for a moment. A bridge
    that appears without any rule is not open at once: it may be that of an `--internal` network in the making.
    """
    found = {}
    for key in present.items():
        record = (before or {}).get(key)
        since = now if record is None else record.since
        if key[0] in facts.internal_bridges:
            access = BridgeAccess.CLOSED
        elif key[0] in facts.open_bridges or before is None:
            access = BridgeAccess.OPEN
        elif record is not None and record.access is not BridgeAccess.UNKNOWN:
            access = record.access
        else:
            access = BridgeAccess.OPEN if now >= since + SETTLED_AFTER else BridgeAccess.UNKNOWN
        found[key] = BridgeRecord(access, since)
    return found


def isolated_networks(
    bridges: Bridges, facts: FirewallFacts, networks: Mapping[str, Sequence[str]]
) -> Iterator[IsolatedNetwork]:
    """Yield the isolated networks; `networks` is the host's own addresses on each bridge."""
    for (name, _), known in bridges.items():
        internal, silent = known.access is BridgeAccess.CLOSED, name in facts.silent_bridges
        for own in map(ip_interface, networks.get(name, ()) if internal or silent else ()):
            yield IsolatedNetwork(own.network, str(own.ip), internal, silent)


@dataclass(frozen=True, slots=True)
class ChainEdit:
    """One command for the chain `DOCKER-USER` of a backend."""

    backend: Backend
    arguments: tuple[str, ...]
    """The arguments of iptables: `-I DOCKER-USER 2 -m mark ...`."""


@dataclass(frozen=True, slots=True)
class FirewallPlan:
    """What is to be there, and what only an operator can do."""

    marking: MarkingRules | None = None
    """The table that marks packets; None if there is to be none."""
    edits: tuple[ChainEdit, ...] = ()
    """The commands that make `DOCKER-USER` as it must be; empty if it is."""
    opened: frozenset[Backend] = frozenset()
    """The backends that have our rule once the edits are done."""
    problems: tuple[Problem, ...] = field(default=())


def make_firewall_plan(
    facts: FirewallFacts,
    settings: FirewallSettings,
    demand: FirewallDemand,
    bridges: Bridges,
    *,
    is_marking: bool = False,
) -> FirewallPlan:
    """Return what to change. Without services, all of ours is removed and nothing is a problem.

    `is_marking`: whether this process has made the table that marks packets. It stays then: the rules of an engine that
    restarts are missing for a moment.
    """
    if not demand.needed:
        return FirewallPlan(edits=tuple(removals(facts)))
    problems = tuple(firewall_problems(facts, settings, demand.direct))
    if not settings.forwards:
        return FirewallPlan(edits=tuple(removals(facts)), problems=problems)
    marking = _marking(facts, settings, demand, bridges) if facts.filters_forwarded or is_marking else None
    if settings.mode is FirewallMode.REPORT:
        return FirewallPlan(marking, tuple(removals(facts)), problems=problems)
    opened = frozenset(backend for backend, table in facts.filters.items() if table.user_chain is not None)
    return FirewallPlan(marking, tuple(_chain_edits(facts, facts.accept_mark or DEFAULT_MARK)), opened, problems)


def _marking(
    facts: FirewallFacts, settings: FirewallSettings, demand: FirewallDemand, bridges: Bridges
) -> MarkingRules:
    indexes = {
        access: {index for (_, index), known in bridges.items() if known.access is access} for access in BridgeAccess
    }
    return MarkingRules(
        settings.opened.pool,
        facts.accept_mark or DEFAULT_MARK,
        tuple(sorted(demand.addresses)),
        tuple(sorted(demand.ports)),
        open_interfaces=tuple(sorted(facts.links | indexes[BridgeAccess.OPEN])),
        internal_bridges=tuple(sorted(indexes[BridgeAccess.CLOSED])),
        silent_bridges=tuple(sorted(index for name, index in bridges if name in facts.silent_bridges)),
    )


def is_ours(rule: IptablesRule) -> bool:
    """Return whether a rule has our comment."""
    return rule.comment == COMMENT


def wanted_rule(mark: AcceptMark) -> IptablesRule:
    """Return our rule in `DOCKER-USER`, as iptables-save lists it."""
    *condition, jump, verdict = advice.accept_words(mark)
    return IptablesRule((*condition, "-m", "comment", "--comment", COMMENT, jump, verdict))


def removals(facts: FirewallFacts) -> Iterator[ChainEdit]:
    """Yield the edits that remove every rule of ours."""
    for backend, table in facts.filters.items():
        for rule in filter(is_ours, table.user_chain or ()):
            yield ChainEdit(backend, ("-D", USER_CHAIN, *rule.words))


def _chain_edits(facts: FirewallFacts, mark: AcceptMark) -> Iterator[ChainEdit]:
    """Yield the edits that leave our rule once, after every rule of the operator that takes effect."""
    wanted = wanted_rule(mark)
    for backend, table in facts.filters.items():
        rules = table.user_chain
        if rules is None:
            continue
        reached = rules[: final_rule(rules)]
        if reached.count(wanted) == 1 and sum(map(is_ours, rules)) == 1:
            continue
        for rule in filter(is_ours, rules):
            yield ChainEdit(backend, ("-D", USER_CHAIN, *rule.words))
        others = tuple(rule for rule in rules if not is_ours(rule))
        final = final_rule(others)
        if final == len(others):
            yield ChainEdit(backend, ("-A", USER_CHAIN, *wanted.words))
        # After a rule that accepts or drops everything ours has no effect, and before it would be against the operator.
        elif others[final].target == "RETURN":
            yield ChainEdit(backend, ("-I", USER_CHAIN, str(final + 1), *wanted.words))


def final_rule(rules: tuple[IptablesRule, ...]) -> int:
    """Return the index of the first rule that decides for every packet, or the length if there is none."""
    for place, rule in enumerate(rules):
        if rule.target in _FINAL and rule.is_unconditional:
            return place
    return len(rules)


def firewall_problems(
    facts: FirewallFacts, settings: FirewallSettings, direct: Iterable[DirectEndpoint] = ()
) -> Iterator[Problem]:
    """Yield what only an operator can open, each with the line to type; nothing for what is open already.

    `direct`: where other workers reach endpoints of this one at containers' own addresses.
    """
    mark = facts.accept_mark or DEFAULT_MARK
    if settings.forwards:
        for backend, reason in facts.failures.items():
            yield _unreadable(backend, reason, settings, mark)
        for backend, table in facts.filters.items():
            yield from _engine_chain_problems(backend, table, settings, mark)
        yield from _engine_table_problems(facts, settings, mark)
        yield from _forward_problems(facts, settings, mark)
    yield from _input_problems(facts, settings)
    yield from direct_access_problems(facts, direct, settings.opened.pool.version)


def _problem(code: Code, reason: str, remedy: str) -> Problem:
    return Problem(code, Severity.WARNING, "firewall", reason, remedy)


def _run(*lines: str) -> str:
    return f"run `{' && '.join(lines)}`"


def _unreadable(backend: Backend, reason: str, settings: FirewallSettings, mark: AcceptMark) -> Problem:
    program = iptables_program(backend, settings.opened.pool.version)
    line = advice.user_chain_line(program, mark, 1)
    return _problem(
        Code.FIREWALL_UNREADABLE,
        f"the rules of iptables ({backend}) cannot be read or changed: {reason}; connections from other hosts and "
        "between container networks may be dropped",
        f"give vipmesh what it lacks, or {_run(line)} on the host",
    )


def _engine_chain_problems(
    backend: Backend, table: IptablesFilter, settings: FirewallSettings, mark: AcceptMark
) -> Iterator[Problem]:
    rules = table.user_chain
    if rules is None or _accepts_mark(rules[: final_rule(rules)], mark):
        return
    others = tuple(rule for rule in rules if not is_ours(rule))
    final = final_rule(others)
    program = iptables_program(backend, settings.opened.pool.version)
    verdict = others[final].target if final < len(others) else ""
    if verdict in {"DROP", "REJECT"}:
        yield _problem(
            Code.FIREWALL_REPORTED,
            f"rule {final + 1} of {USER_CHAIN} drops all that the rules before it do not accept, translated "
            "connections too",
            _run(advice.user_chain_line(program, mark, final + 1)),
        )
    elif settings.mode is FirewallMode.REPORT and verdict != "ACCEPT":
        yield _problem(
            Code.FIREWALL_REPORTED,
            "the container engine's rules drop connections from other hosts and between container networks, and "
            "[host] firewall is report",
            _run(advice.user_chain_line(program, mark, None if final == len(others) else final + 1)),
        )
    if not any(rule.target == USER_CHAIN for rule in table.chains.get("FORWARD", ())) and table.drops("FORWARD"):
        yield _problem(
            Code.FIREWALL_REPORTED,
            f"the chain FORWARD drops everything and leads nowhere, not even to {USER_CHAIN}: it was flushed",
            "restart the container engine, which writes its rules again",
        )


def _accepts_mark(rules: tuple[IptablesRule, ...], mark: AcceptMark) -> bool:
    """Return whether an operator's rule accepts the mark."""
    return any(
        rule.target == "ACCEPT" and rule.option("--mark") == (str(mark), False) and not is_ours(rule) for rule in rules
    )


def _engine_table_problems(facts: FirewallFacts, settings: FirewallSettings, mark: AcceptMark) -> Iterator[Problem]:
    """Yield what this engine drops: requests, which only nftables forwards, and no replies."""
    if facts.has_engine_table and facts.accept_mark is None and not settings.takes_input:
        yield _problem(
            Code.FIREWALL_ENGINE_SETTING,
            "the container engine filters by nftables and accepts no mark: connections from other hosts and between "
            "container networks are dropped",
            f"write {advice.engine_setting(mark)} to /etc/docker/daemon.json and restart the engine",
        )


def _forward_problems(facts: FirewallFacts, settings: FirewallSettings, mark: AcceptMark) -> Iterator[Problem]:
    """Yield what drops forwarded packets where no engine has a chain for us."""
    version = settings.opened.pool.version
    for backend, table in facts.filters.items():
        if table.user_chain is not None or not table.drops("FORWARD"):
            continue
        if any(_accepts_mark(rules, mark) for rules in table.chains.values()):
            continue
        if settings.takes_input and _accepts_established(table):
            continue
        program = iptables_program(backend, version)
        line = advice.ufw_forward_line(mark, version) if table.has_ufw else advice.forward_line(program, mark)
        reason = "ufw drops what is forwarded" if table.has_ufw else f"the chain FORWARD ({backend}) drops by default"
        yield _problem(Code.FIREWALL_REPORTED, f"{reason}, translated connections too", _run(line))
    for chain in facts.dropping:
        if chain.hook == "forward" and not _accepts_in(chain, settings, mark):
            line = advice.nft_forward_line(chain.table, chain.name, mark)
            yield _problem(
                Code.FIREWALL_REPORTED,
                f"the nftables chain {chain.name} of table {chain.table} drops by default, translated connections too",
                _run(line),
            )


def _accepts_established(table: IptablesFilter) -> bool:
    """Return whether replies are let through, which are all that IPVS forwards: requests leave as the host's own."""
    return any(
        rule.target == "ACCEPT" and "ESTABLISHED" in (rule.option("--ctstate") or ("",))[0]
        for chain, rule in table.every_rule()
        if "forward" in chain.lower()
    )


def _accepts_in(chain: DroppingChain, settings: FirewallSettings, mark: AcceptMark) -> bool:
    """Return whether a rule of the chain accepts the mark, or connections to the pool by conntrack."""
    marked = rf"mark (?:&|and) 0x0*{mark.mask:x} == 0x0*{mark.value:x}\b.*\baccept"
    tracked = rf"ct original (?:ip6? )?daddr {re.escape(str(settings.opened.pool))}\b.*\baccept"
    replies = r"|ct state \S*(?:\{.*)?established\b.*\baccept" if settings.takes_input else ""
    return re.search(f"{marked}|{tracked}{replies}", chain.rules) is not None


def _input_problems(facts: FirewallFacts, settings: FirewallSettings) -> Iterator[Problem]:
    """Yield what drops requests that arrive at the host itself: for VIPs and ports, and for the name server."""
    opened, version = settings.opened, settings.opened.pool.version
    if not settings.takes_input and opened.resolver is None:
        return
    lines: tuple[str, ...]
    pool = re.escape(str(opened.pool))
    if facts.has_ufw and not _has_input_rule(facts, rf"-d {pool} .*-j ACCEPT"):
        lines = tuple(advice.ufw_input_lines(opened))
        yield _problem(Code.FIREWALL_REPORTED, "ufw drops requests to this host's VIPs", _run(*lines))
    elif facts.drops("INPUT") and not facts.has_ufw and not _has_input_rule(facts, rf"-d {pool} .*-j ACCEPT"):
        backend = next(backend for backend, table in facts.filters.items() if table.drops("INPUT"))
        lines = tuple(advice.iptables_input_lines(iptables_program(backend, version), opened))
        yield _problem(Code.FIREWALL_REPORTED, "the chain INPUT drops by default, requests to VIPs too", _run(*lines))
    if facts.has_firewalld and not re.search(rf"daddr {pool}\b.*\baccept", facts.nft):
        lines = tuple(advice.firewalld_lines(opened))
        yield _problem(Code.FIREWALL_REPORTED, "firewalld rejects requests to this host's VIPs", _run(*lines))
    for chain in facts.dropping:
        if chain.hook == "input" and not re.search(rf"daddr {pool}\b.*\baccept", chain.rules):
            lines = tuple(advice.nft_input_lines(chain.table, chain.name, opened))
            yield _problem(
                Code.FIREWALL_REPORTED,
                f"the nftables chain {chain.name} of table {chain.table} drops by default, requests to VIPs too",
                _run(*lines),
            )


def _has_input_rule(facts: FirewallFacts, pattern: str) -> bool:
    return any(
        re.search(pattern, " ".join(rule.words)) is not None
        for table in facts.filters.values()
        for chain, rule in table.every_rule()
        if "input" in chain.lower()
    )
