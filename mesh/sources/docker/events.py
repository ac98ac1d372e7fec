"""Decides what an event of the engine means. Pure.

A stop begins before its event: the engine signals the process first and reports it a millisecond or two later. The
signal decides: the container's stop signal or another terminating signal begins its end, and new connections go
elsewhere immediately; others (HUP, USR1) concern only the application. A container whose stop signal is `DRAIN_SIGNAL`
asks to be drained first.
"""

import signal
from enum import Enum, auto

from mesh.sources.docker.inspection import StopConfig, signal_number
from mesh.sources.docker.instances import has_mesh_label
from mesh.sources.docker.messages import DockerEvent

TERMINATING_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""Signals that end a process which does not handle them."""
_ENDED_ACTIONS = frozenset({"die", "died", "destroy", "remove"})
"""`died` and `remove` are Podman's names. Podman 4 reports `die`, and yet filters by `died`."""
_DIED_ACTIONS = frozenset({"die", "died"})
_EXIT_CODE_DIGITS = 10
"""The most digits of an exit code: Windows has codes of 32 bits."""
WATCHED_ACTIONS = (
    "start",
    "kill",
    "oom",
    *sorted(_ENDED_ACTIONS),
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
    INSPECT = auto()
    """Inspect the container, and list the containers again: Podman's list lacks the health."""
    BEGUN = auto()
    """The container has a new process: list again, and forget what was known of the previous process."""
    ENDED = auto()
    """The container's process is gone: list again, and forget what was known of it."""
    STOPPING = auto()
    """The container was sent a signal that ends it."""
    OUT_OF_MEMORY = auto()
    """The kernel ended a process of the container for want of memory: the main one if the container ends, too."""
    DRAIN_FIRST = auto()
    """The container was sent the drain signal as its stop signal."""


def event_meaning(event: DockerEvent, ending: StopConfig | None) -> EventMeaning:
    """Return the action for an event.

    `ending` is the container's stop configuration, or None if it is not known. It is known of labelled containers, and
    of those whose network they use.
    """
    attributes = event.actor.attributes or {}
    if event.type == "network":
        return EventMeaning.LOOK
    is_ours = has_mesh_label(attributes)
    if event.type != "container" or (ending is None and not is_ours):
        return EventMeaning.NOTHING
    match event.action:
        case "start":
            return EventMeaning.BEGUN
        case action if action in _ENDED_ACTIONS:
            return EventMeaning.ENDED
        case "oom":
            return EventMeaning.OUT_OF_MEMORY
        case "kill" if not is_ours:
            return EventMeaning.NOTHING
        case "kill":
            return _signalled(signal_number(attributes.get("signal", "")), ending or StopConfig())
    return EventMeaning.INSPECT if event.action.startswith("health_status") else EventMeaning.LOOK


def exit_code(event: DockerEvent) -> int | None:
    """Return the exit code of the event of a process that has ended; None for other events, or if it has none."""
    if event.action not in _DIED_ACTIONS:
        return None
    attributes = event.actor.attributes or {}
    text = attributes.get("exitCode", attributes.get("containerExitCode", ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _EXIT_CODE_DIGITS else None


def has_died(event: DockerEvent) -> bool:
    """Return whether the event says that the process of a container has ended."""
    return event.action in _DIED_ACTIONS


def _signalled(number: int | None, ending: StopConfig) -> EventMeaning:
    if number == ending.signal:
        return EventMeaning.DRAIN_FIRST if ending.drains_first else EventMeaning.STOPPING
    return EventMeaning.STOPPING if number in TERMINATING_SIGNALS else EventMeaning.NOTHING
