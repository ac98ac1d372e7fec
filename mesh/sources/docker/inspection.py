"""The facts of a container that only its inspection contains. Pure.

A restart keeps a container's ID and usually its address, and replaces its process. What was known of the former process
says nothing about the new one, so a process is identified by `State.StartedAt` too.
"""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from mesh.model.service import Health
from mesh.sources.docker.messages import ContainerDetails, HostConfig

DRAIN_SIGNAL = signal.SIGCONT
"""A `--stop-signal` that means: drain me first. Running processes ignore it, and almost none handles it: signal(7)."""

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)  # RFC 3339 section 5.6, as Go writes it
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

STOP_GRACE_LABEL = "io.vipmesh.stop-grace"
"""The label of tasks with the seconds between stop signal and SIGKILL: swarm does not write them into the container."""
_SECONDS = re.compile(r"[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StopConfig:
    """How a container is to be stopped."""

    signal: int = signal.SIGTERM
    seconds: float = 10.0
    """Time between the signal and SIGKILL."""

    @property
    def drains_first(self) -> bool:
        """Whether its stop signal asks for a drain."""
        return self.signal == DRAIN_SIGNAL


@dataclass(frozen=True, slots=True)
class ContainerInspection:
    """The facts of one container, as of its last inspection."""

    stop: StopConfig = StopConfig()
    run: str | None = None
    """`State.StartedAt`, which distinguishes the successive processes of a container; None if it is not told."""
    health: Health | None = None
    """The result of its HEALTHCHECK, or None if it has none."""
    network_mode: str = ""
    """`host`, `container:ID` or the name of a network."""
    pid: int = 0
    """The first process, by the PIDs of the engine's host; 0 if none runs."""
    fixed_ports: frozenset[tuple[str, int, int]] = frozenset()
    """Ports of the worker that are the same after each start: transport, container port, port of the worker."""


def inspection_of(inspected: ContainerDetails) -> ContainerInspection:
    """Convert the engine's response. An unknown stop signal counts as SIGTERM, as the engine does."""
    config, state = inspected.config, inspected.state
    seconds = 10.0 if config.stop_timeout is None else float(config.stop_timeout)
    grace = (config.labels or {}).get(STOP_GRACE_LABEL, "")
    if config.stop_timeout is None and _SECONDS.fullmatch(grace):
        seconds = float(grace)
    stop = StopConfig(signal_number(config.stop_signal or "") or signal.SIGTERM, seconds)
    run = state.started_at if start_time(state.started_at) is not None else None
    said = None if state.health is None else state.health.status
    health = Health(said) if said in set(Health) else None
    return ContainerInspection(
        stop,
        run,
        health,
        inspected.host_config.network_mode,
        pid=state.pid,
        fixed_ports=frozenset(_fixed_ports(inspected.host_config)),
    )


def _fixed_ports(config: HostConfig) -> Iterator[tuple[str, int, int]]:
    """Yield the ports that the container asks for by number."""
    for inside, bindings in (config.port_bindings or {}).items():
        port, _, transport = inside.partition("/")
        for binding in bindings or ():
            if _PORT.fullmatch(port) and _PORT.fullmatch(binding.host_port):
                yield transport or "tcp", int(port), int(binding.host_port)


def start_time(text: str | None) -> int | None:
    """Convert a time of the engine's API to nanoseconds since 1970; None if it is none, or that of no start."""
    match = _TIME.fullmatch(text) if text else None
    if match is None:
        return None
    seconds, fraction, sign, hours, minutes = match.groups()
    whole = _whole_seconds(seconds, sign, hours, minutes)
    return whole * 1_000_000_000 + int((fraction or "").ljust(9, "0")) if whole > 0 else None


@lru_cache(maxsize=1024)
def _whole_seconds(seconds: str, sign: str | None, hours: str | None, minutes: str | None) -> int:
    """Return the seconds since 1970, 0 if it is no time. Thousands of log lines have the same second."""
    try:
        moment = datetime.fromisoformat(seconds).replace(tzinfo=UTC)
        if sign is not None:
            ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
            moment += -ahead if sign == "+" else ahead
    except (ValueError, OverflowError):
        return 0
    return (moment - _EPOCH) // timedelta(seconds=1)


def signal_number(text: str) -> int | None:
    """Convert `15`, `TERM` or `SIGTERM` to 15; None if it is none of these forms."""
    if re.fullmatch(r"[0-9]{1,2}", text, re.ASCII):
        return int(text)
    try:
        return signal.Signals["SIG" + text.upper().removeprefix("SIG")]
    except KeyError:
        return None
