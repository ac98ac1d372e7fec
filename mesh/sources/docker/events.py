"""What an event of the engine means. Pure.

Stopping begins before any event: the engine signals the process first and tells of it then, a millisecond or two
later. What can be made of it is decided by the signal: the container's stop signal or SIGKILL is the beginning of its
end, and new connections go elsewhere at once; others (HUP, USR1) are between the operator and the application. A
container whose stop signal is `DRAIN_SIGNAL` is one that asked to be drained first.
"""

import re
import signal
from dataclasses import dataclass
from enum import Enum, auto

from mesh.sources.docker.instances import has_mesh_label
from mesh.sources.docker.messages import ContainerDetails, DockerEvent

DRAIN_SIGNAL = signal.SIGCONT
"""As `--stop-signal`: drain me first. Ignored by any process that runs, and almost none handles it: signal(7)."""
TERMINATING_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""Ends a process that does nothing about it."""
WATCHED_ACTIONS = (
    "start",
    "kill",
    "die",
    "destroy",
    "pause",
    "unpause",
    "rename",
    "health_status",
    "connect",
    "disconnect",
)
"""What is asked for."""


class EventMeaning(Enum):
    """What to do about an event."""

    NOTHING = auto()
    LOOK = auto()
    """List again."""
    BEGUN = auto()
    """Its process is a new one: list, and forget what was known of the last one."""
    ENDED = auto()
    """Its process is gone: list, and forget what was known of it."""
    STOPPING = auto()
    """It was sent a signal that ends it."""
    DRAIN_FIRST = auto()
    """It was sent the drain signal as its stop signal."""


@dataclass(frozen=True, slots=True)
class StopConfig:
    """How a container wants to be stopped."""

    signal: int = signal.SIGTERM
    seconds: float = 10.0
    """Between the signal and SIGKILL."""
    started_at: str = ""
    """Tells one process of the container from the next."""

    @property
    def drains_first(self) -> bool:
        """Whether its stop signal asks for a drain."""
        return self.signal == DRAIN_SIGNAL


def stop_config_of(inspected: ContainerDetails) -> StopConfig:
    """What the engine knows of a container's end; an unknown signal is taken for SIGTERM, as the engine does."""
    config = inspected.config
    seconds = 10.0 if config.stop_timeout is None else float(config.stop_timeout)
    number = signal_number(config.stop_signal or "") or signal.SIGTERM
    return StopConfig(number, seconds, inspected.state.started_at)


def signal_number(text: str) -> int | None:
    """`15`, `TERM` or `SIGTERM` -> 15; None if it is none of them."""
    if re.fullmatch(r"[0-9]{1,2}", text, re.ASCII):
        return int(text)
    try:
        return signal.Signals["SIG" + text.upper().removeprefix("SIG")]
    except KeyError:
        return None


def event_meaning(event: DockerEvent, ending: StopConfig | None) -> EventMeaning:
    """What to do about an event; `ending` is that of the container, None if it is not known."""
    attributes = event.actor.attributes or {}
    if event.type == "network":
        return EventMeaning.LOOK
    if event.type != "container" or not has_mesh_label(attributes):
        return EventMeaning.NOTHING
    match event.action:
        case "start":
            return EventMeaning.BEGUN
        case "die" | "destroy":
            return EventMeaning.ENDED
        case "kill":
            return _signalled(signal_number(attributes.get("signal", "")), ending or StopConfig())
    return EventMeaning.LOOK


def _signalled(number: int | None, ending: StopConfig) -> EventMeaning:
    if number == ending.signal:
        return EventMeaning.DRAIN_FIRST if ending.drains_first else EventMeaning.STOPPING
    return EventMeaning.STOPPING if number in TERMINATING_SIGNALS else EventMeaning.NOTHING
