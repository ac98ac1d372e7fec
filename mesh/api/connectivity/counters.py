"""Guesses where packets were lost from the counters of iptables' legacy backend, which nftables does not trace. Pure.

Other packets change the counters, too, so that the answer is a guess.
"""

import re
from collections.abc import Mapping

from mesh.api.connectivity.trace import LossCause, PacketLoss

_TABLE = re.compile(r"\*(\w+)")
_POLICY = re.compile(r":(\S+) (DROP|REJECT) \[(\d+):\d+\]")
_RULE = re.compile(r"\[(\d+):\d+\] -A (\S+) (.*-j (?:DROP|REJECT).*)")

DropCounters = Mapping[tuple[str, str, str], int]
"""(table, chain, rule) -> packets that it has dropped; the rule is empty for the policy of the chain."""


def parse_drop_counters(text: str) -> DropCounters:
    """Return the counters of all rules and policies that drop or reject, from the text of iptables-save(8) -c."""
    table = ""
    found: dict[tuple[str, str, str], int] = {}
    for line in text.splitlines():
        if match := _TABLE.fullmatch(line):
            table = match[1]
        elif match := _POLICY.fullmatch(line):
            found[table, match[1], ""] = int(match[3])
        elif match := _RULE.fullmatch(line):
            # Equal rules count together: only the first one ever matches.
            key = table, match[2], match[3]
            found[key] = found.get(key, 0) + int(match[1])
    return found


def guess_loss(before: str, after: str, family: str) -> PacketLoss | None:
    """Return the drop whose counter has grown most between two texts of iptables-save(8) -c, or None if none has.

    `family`: `ip` or `ip6`.
    """
    return _most_grown(parse_drop_counters(before), parse_drop_counters(after), family, ":DOCKER-USER " in after)


def _most_grown(before: DropCounters, after: DropCounters, family: str, has_docker_user: bool) -> PacketLoss | None:
    grown = {key: packets - before.get(key, 0) for key, packets in after.items()}
    key = max(grown, key=lambda key: (grown[key], key), default=None)
    if key is None or grown[key] <= 0:
        return None
    table, chain, rule = key
    cause = LossCause.RULE if rule else LossCause.POLICY
    where = f"{family} {table} {chain}: {rule or 'policy drop'}"
    user = has_docker_user and (chain == "FORWARD" or chain.startswith("DOCKER"))
    oif = "" if chain == "INPUT" else "unknown"
    return PacketLoss(
        cause, where, family=family, table=table, chain=chain, rule=rule, oif=oif, passed_docker_user=user
    )
