"""Decides what an event of the engine means. Pure.

A stop begins before its event: the engine signals the process first and reports it a millisecond or two later. The
signal decides: the container's stop signal or another terminating signal begins its end, and new connections go
elsewhere immediately; others (HUP, USR1) concern only the application. A container whose stop signal is `DRAIN_SIGNAL`
asks to be drained first.
"""

import re
import signal
from dataclasses import dataclass
from enum import Enum, auto

from mesh.sources.docker.instances import has_mesh_label
from mesh.sources.docker.messages import ContainerDetails, DockerEvent

DRAIN_SIGNAL = signal.SIGCONT
"""A `--stop-signal` that means: drain me first. Running processes ignore it, and almost none handles it: signal(7)."""
TERMINATING_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""Signals that end a process which does not handle them."""
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
"""Actions to request from the engine."""


class EventMeaning(Enum):
    """The action to take for an event."""

    NOTHING = auto()
    LOOK = auto()
    """List the containers again."""
    BEGUN = auto()
    """The container has a new process: list again, and forget what was known of the previous process."""
    ENDED = auto()
    """The container's process is gone: list again, and forget what was known of it."""
    STOPPING = auto()
    """The container was sent a signal that ends it."""
    DRAIN_FIRST = auto()
    """The container was sent the drain signal as its stop signal."""


@dataclass(frozen=True, slots=True)
class StopConfig:
    """How a container is to be stopped."""

    signal: int = signal.SIGTERM
    seconds: float = 10.0
    """Time between the signal and SIGKILL."""
    started_at: str = ""
    """Distinguishes the successive processes of a container."""

    @property
    def drains_first(self) -> bool:
        """Whether its stop signal asks for a drain."""
        return self.signal == DRAIN_SIGNAL


def stop_config_of(inspected: ContainerDetails) -> StopConfig:
    """Return the stop configuration of a container. An unknown signal counts as SIGTERM, as the engine does."""
    config = inspected.config
    seconds = 10.0 if config.stop_timeout is None else float(config.stop_timeout)
    number = signal_number(config.stop_signal or "") or signal.SIGTERM
    return StopConfig(number, seconds, inspected.state.started_at)


def signal_number(text: str) -> int | None:
    """Convert `15`, `TERM` or `SIGTERM` to 15; None if it is none of these forms."""
    if re.fullmatch(r"[0-9]{1,2}", text, re.ASCII):
        return int(text)
    try:
        return signal.Signals["SIG" + text.upper().removeprefix("SIG")]
    except KeyError:
        return None


def event_meaning(event: DockerEvent, ending: StopConfig | None) -> EventMeaning:
    """Return the action for an event. `ending` is the container's stop configuration, or None if it is not known."""
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
