"""Judges whether a rule of this host drops what other workers send to its endpoints. Pure.

The probes of this worker do not meet such a rule: what a host sends itself is not forwarded. Only what is dropped for
certain is reported. Where the engine's own rules drop what is sent to a container's address, `direct_access` says so.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mesh.host.firewall.advice import iptables_program
from mesh.host.firewall.direct_access import DirectEndpoint, bridge_of
from mesh.host.firewall.facts import Backend, FirewallFacts
from mesh.host.firewall.plan import FirewallDemand
from mesh.host.firewall.rule_walk import DroppingRule, ForwardedPacket, RuleWalk, translated
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address

_ENGINE_CHAIN = re.compile("DOCKER(?!-USER$)")
"""The chains that the engine writes."""
_OF_TABLE = {"raw": ("-t", "raw"), "filter": ()}
"""The options of iptables for a table."""
_MOST_SENDERS = 64
"""Other workers whose addresses are tried."""


@dataclass(frozen=True, slots=True, order=True)
class PeerDrop:
    """Requests of other workers that a rule of this host drops."""

    endpoint: DirectEndpoint
    senders: tuple[Address, ...]
    """The workers whose requests are dropped; empty: those of all."""
    backend: Backend
    place: str
    """``the rule `...` of the chain FORWARD``, or `the policy of the chain FORWARD`."""
    words: tuple[str, ...]
    """The words that remove the rule, or that let the requests pass where no rule drops them."""

    def problem(self, since: str, version: int) -> Problem:
        """Return what to say of it. `since`: when it was noticed, in UTC; `version`: the version of IP."""
        program = iptables_program(self.backend, version)
        whose = f"the workers at {', '.join(self.senders)}" if self.senders else "other workers"
        at = f"port {self.endpoint.port}/{self.endpoint.transport}"
        line = f"`{program} {shlex.join(self.words)}` on that worker"
        return Problem(
            Code.PEERS_DROPPED,
            Severity.ERROR,
            "firewall",
            f"{self.place} has dropped what {whose} send to {self.endpoint.service} there, at {at}, since {since}",
            f"remove it by {line}, if it is not meant" if "-D" in self.words else f"allow it by {line}",
            owner=self.endpoint.owner or None,
        )


def peer_drops(facts: FirewallFacts, demand: FirewallDemand) -> tuple[PeerDrop, ...]:
    """Return what rules of this host drop of what other workers send to its endpoints, one for each service and port at
    most.
    """
    found: dict[tuple[object, ...], PeerDrop] = {}
    for endpoint in sorted(demand.direct):
        if (endpoint.transport, endpoint.port) in demand.ports:
            continue  # a published port of the mesh itself, which our own rules answer
        for drop in _drops(endpoint, facts, demand):
            found.setdefault((endpoint.owner, endpoint.service, drop.place), drop)
    return tuple(sorted(found.values()))


def _drops(endpoint: DirectEndpoint, facts: FirewallFacts, demand: FirewallDemand) -> Iterator[PeerDrop]:
    """Yield one for each rule that drops requests of some workers to the endpoint."""
    senders: Iterable[Address | None] = sorted(demand.senders)[:_MOST_SENDERS] or (None,)
    by_rule: dict[tuple[Backend, str, ForwardedPacket, DroppingRule], list[Address]] = {}
    tried = 0
    for sender in senders:
        tried += 1
        found = _dropped(endpoint, facts, demand, sender)
        if found is not None:
            backend, table, packet, rule = found
            by_rule.setdefault((backend, table, replace(packet, sender=None), rule), []).append(sender or "")
    for (backend, table, packet, rule), of in by_rule.items():
        whose = () if len(of) == tried else tuple(of)
        yield PeerDrop(endpoint, whose, backend, _place(rule), (*_OF_TABLE[table], *_words(rule, packet)))


def _dropped(
    endpoint: DirectEndpoint, facts: FirewallFacts, demand: FirewallDemand, sender: Address | None
) -> tuple[Backend, str, ForwardedPacket, DroppingRule] | None:
    """Return the first rule that drops what a worker sends to the endpoint, with its table, and the packet."""
    bridges = facts.open_bridges | facts.internal_bridges | facts.silent_bridges | facts.networks.keys()
    bridge = bridge_of(endpoint.address, facts.networks) or ""
    is_own = not bridge and endpoint.address in demand.addresses
    if not bridge and not is_own:
        return None
    arrived = ForwardedPacket(
        endpoint.address, endpoint.port, endpoint.transport, bridge, frozenset(bridges), sender, is_local=is_own
    )
    for backend, table in facts.raw.items():
        if (rule := RuleWalk(table, arrived).dropped_by("PREROUTING")) is not None and _by_operator(rule):
            return backend, "raw", arrived, rule
    packet = _behind_nat(arrived, facts) if is_own else arrived
    hook = "INPUT" if packet.is_local else "FORWARD"
    for backend, table in facts.filters.items():
        if (rule := RuleWalk(table, packet).dropped_by(hook)) is not None and _by_operator(rule, is_own=is_own):
            return backend, "filter", packet, rule
    return None


def _behind_nat(arrived: ForwardedPacket, facts: FirewallFacts) -> ForwardedPacket:
    """Return the packet as the engine forwards it to a container; the same if it does not."""
    for table in facts.nat.values():
        if (to := translated(table, arrived)) is not None and (bridge := bridge_of(to[0], facts.networks)):
            return replace(arrived, address=to[0], port=to[1], bridge=bridge, is_translated=True, is_local=False)
    return arrived


def _by_operator(rule: DroppingRule, *, is_own: bool = False) -> bool:
    """Return whether it is for an operator to change, and no rule of the engine for its containers' own addresses."""
    return is_own or (rule.rule is not None and _ENGINE_CHAIN.match(rule.chain) is None and _is_narrow(rule))


def _is_narrow(rule: DroppingRule) -> bool:
    """Return whether the rule names what it drops: others are the engine's own, as for internal networks."""
    return rule.rule is not None and not rule.rule.is_unconditional and rule.rule.option("-o") is None


def _place(rule: DroppingRule) -> str:
    if rule.rule is None:
        return f"the policy of the chain {rule.chain}"
    # Without its number, which changes with every rule before it.
    return f"the rule `{shlex.join(rule.rule.words)}` of the chain {rule.chain}"


def _words(rule: DroppingRule, packet: ForwardedPacket) -> tuple[str, ...]:
    if rule.rule is not None:
        return ("-D", rule.chain, *rule.rule.words)
    to = ("-d", packet.address, "-p", packet.transport.value, "--dport", str(packet.port))
    return ("-I", rule.chain, *to, "-j", "ACCEPT")
