"""What `vipmesh ship` says of itself on its socket. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from mesh.model.errors import CodedText
from mesh.model.past_event import bounded_text
from mesh.platform.logs.counters import LogCounters

MAX_STATE_BYTES = 64 << 10
"""The most bytes of a state."""
_MAX_TEXT = 500
_MAX_LOSSES = 50
"""The most services that losses are told of."""


@dataclass(frozen=True, slots=True)
class ShipWait:
    """What a part of the process waits for."""

    part: str
    text: str
    code: str


@dataclass(frozen=True, slots=True)
class ServiceLoss:
    """What was lost and refused of one service, since the start."""

    service: str
    lost: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class ShipState:
    """The process as a whole, since its start."""

    logs: int = 0
    """Logs that are collected now."""
    lag_seconds: float = 0.0
    """The age of the last line that was delivered of the log furthest behind; 0 if none is behind."""
    unread_bytes: int = 0
    lines: int = 0
    """Documents that the store of logs has."""
    bytes: int = 0
    """Bytes of them."""
    lost: int = 0
    """Occasions on which rotation removed files before they were read."""
    lost_bytes: int = 0
    """Bytes of them, as far as their number is known."""
    refused: int = 0
    """Documents that the store of logs refused for good."""
    limited: int = 0
    """Lines that `log.rate_limit` dropped."""
    store_failures: int = 0
    """Deliveries that the store did not take."""
    waits: tuple[ShipWait, ...] = ()
    losses: tuple[ServiceLoss, ...] = ()
    """The services of which anything was lost or refused, the worst ones."""


def ship_state(logs: int, counters: LogCounters, waits: Mapping[str, CodedText]) -> ShipState:
    """Return the state. `waits` has what the parts wait for, by part."""
    services = tuple(counters.services.values())
    return ShipState(
        logs,
        round(max(0.0, counters.lag_seconds), 3),
        counters.unread_bytes,
        sum(each.lines for each in services),
        sum(each.bytes for each in services),
        sum(each.lost for each in services),
        sum(each.lost_bytes for each in services),
        sum(each.refused for each in services),
        sum(each.limited for each in services),
        counters.store_failures,
        tuple(ShipWait(part, bounded_text(each.text, _MAX_TEXT), str(each.code)) for part, each in waits.items()),
        _losses(counters),
    )


def _losses(counters: LogCounters) -> tuple[ServiceLoss, ...]:
    found = [(name, each) for name, each in counters.services.items() if each.lost or each.refused]
    found.sort(key=lambda pair: (-pair[1].lost, -pair[1].refused, pair[0]))
    return tuple(ServiceLoss(name, each.lost, each.refused) for name, each in found[:_MAX_LOSSES])


def read_ship_state(body: bytes) -> ShipState:
    """Return the state that another process has sent, within the bounds. Raises `ValueError`."""
    try:
        state = msgspec.json.decode(body, type=ShipState)
    except RecursionError as error:
        raise ValueError("its answer is nested too deeply") from error
    if not 0 <= state.lag_seconds < 1e10 or min(state.lost, state.refused, state.lines, state.bytes) < 0:
        raise ValueError("a figure of it is none")
    waits = tuple(
        ShipWait(bounded_text(each.part, 40), bounded_text(each.text, _MAX_TEXT), each.code) for each in state.waits[:8]
    )
    losses = tuple(replace(each, service=bounded_text(each.service)) for each in state.losses[:_MAX_LOSSES])
    return replace(state, waits=waits, losses=losses)
