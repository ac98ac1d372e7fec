"""Chooses the few requests that the daemon sends by itself, and reads what came back. Pure."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from mesh.api.connectivity.plan import ConnectivityTarget, TargetKind
from mesh.api.connectivity.report import ConnectivityRow
from mesh.control.arrival import ArrivalCheck, ArrivalObservation, ArrivalPair
from mesh.model.request import RequestOutcome
from mesh.model.service import Transport

_ARRIVED = (RequestOutcome.ANSWERED, RequestOutcome.REFUSED, RequestOutcome.CLOSED)
"""Outcomes that show that a request arrived: a reset comes from an endpoint, or from the proxy."""
_LOST = (RequestOutcome.NO_ANSWER, RequestOutcome.REJECTED)


@dataclass(frozen=True, slots=True)
class SampleTurn:
    """Which requests are due for one network."""

    number: int
    """The number of the round, from 0: each round goes on where the last one ended."""
    most: int
    """The most requests; at least 2."""
    failing: frozenset[str] = frozenset()
    """The services, by owner, whose requests from this network failed last: half of the requests are for them."""


def choose_targets(
    targets: Sequence[ConnectivityTarget], subnets: Collection[str], turn: SampleTurn
) -> tuple[ConnectivityTarget, ...]:
    """Return the VIPs to connect to from a network with these subnets.

    They are TCP, one for each service, of services with an endpoint outside of the network.
    """
    networks = [ip_network(subnet) for subnet in subnets]
    found: dict[str, ConnectivityTarget] = {}
    for target in targets:
        is_vip = target.kind is TargetKind.VIP and target.name is None and target.transport is Transport.TCP
        away = [a for a in target.endpoints if not any(ip_address(a) in network for network in networks)]
        if is_vip and away:
            found.setdefault(target.owner, target)
    failed = [target for target in found.values() if target.owner in turn.failing]
    others = [target for target in found.values() if target.owner not in turn.failing]
    again = _next_ones(failed, turn.number, turn.most // 2)
    return (*again, *_next_ones(others, turn.number, turn.most - len(again)))


def _next_ones(targets: Sequence[ConnectivityTarget], number: int, most: int) -> Sequence[ConnectivityTarget]:
    """Return up to `most` targets; each round goes on where the last one ended."""
    if len(targets) <= most:
        return targets
    start = number * most % len(targets)
    return [*targets[start:], *targets[:start]][:most]


def read_observations(
    network: str,
    targets: Sequence[ConnectivityTarget],
    rows: Sequence[ConnectivityRow],
    control: Sequence[ConnectivityRow],
) -> Iterator[ArrivalObservation]:
    """Yield what the rows show for a network; they are in the order of the targets.

    `control`: the rows of the same requests from the host. What fails there, too, fails for another reason: an endpoint
    that has just ended, or another worker that is away.
    """
    for target, row, own in zip(targets, rows, control, strict=True):
        pair = ArrivalPair(target.owner, network)
        if row.outcome in _ARRIVED:
            yield ArrivalObservation(pair, ArrivalCheck.CONNECTION, arrived=True)
        elif row.outcome in _LOST and own.outcome in _ARRIVED:
            where = f", lost at {row.lost_at}" if row.lost_at is not None else ""
            reason = f"{row.destination}: {row.detail or row.outcome}{where}"
            yield ArrivalObservation(pair, ArrivalCheck.CONNECTION, False, reason, row.remedy or "")
