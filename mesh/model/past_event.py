"""Past events of a worker: what happened to endpoints, services, workers, problems and to its own daemon."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from mesh.model.service import Address, Name

MAX_EVENT_TEXT = 300
"""The most characters of each text of an event. Names and probe answers come from outside."""
MAX_EVENT_NAMES = 16
"""The most routing names, and the most ports, of an event."""


class EventKind(StrEnum):
    """The kind of a past event. The values are stable: programs may compare them."""

    ENDPOINT_CAME = "endpoint-came"
    """An endpoint was registered."""
    ENDPOINT_RESTARTED = "endpoint-restarted"
    """An endpoint has a new process."""
    ENDPOINT_GONE = "endpoint-gone"
    """An endpoint is registered no more."""
    ENDPOINT_HEALTHY = "endpoint-healthy"
    """The check of an endpoint succeeds."""
    ENDPOINT_FAILED = "endpoint-failed"
    """The check of an endpoint fails."""
    ENDPOINT_DRAINED = "endpoint-drained"
    """An endpoint takes no new connections any more."""
    ENDPOINT_UNDRAINED = "endpoint-undrained"
    """An endpoint takes new connections again."""
    ENDPOINT_WEIGHT = "endpoint-weight"
    """An operator gave an endpoint another weight, or the one of its label again."""
    CONTAINER_DIED = "container-died"
    """The process of a container has ended."""
    SERVICE_VIP = "service-vip"
    """A service got its VIP."""
    SERVICE_SERVES = "service-serves"
    """A service got its first endpoint that serves."""
    SERVICE_EMPTY = "service-empty"
    """A service lost its last endpoint that served."""
    SERVICE_SCALED = "service-scaled"
    """Autoscaling has given a service more or fewer instances."""
    SERVICE_GONE = "service-gone"
    """No worker declares a service any more."""
    ROLLOUT_STEP = "rollout-step"
    """A rollout has begun, has taken a step, or was paused or resumed."""
    ROLLOUT_ABORTED = "rollout-aborted"
    """A rollout was aborted."""
    ROLLOUT_DONE = "rollout-done"
    """The new release of a rollout is the one in force."""
    CONFLICT = "conflict"
    """A name, VIP or port of a service is held by another one."""
    LABEL_REFUSED = "label-refused"
    """A label was refused."""
    PROBLEM_BEGAN = "problem-began"
    """Any other problem."""
    PROBLEM_ENDED = "problem-ended"
    """A problem, a conflict or the refusal of a label has ended."""
    WORKER_CAME = "worker-came"
    """A worker was registered for the first time."""
    WORKER_LOST = "worker-lost"
    """The daemon of a worker is gone."""
    WORKER_BACK = "worker-back"
    """The daemon of a lost worker is there again."""
    REPAIRED = "repaired"
    """Changes made outside vipmesh were reverted."""
    DAEMON_STARTED = "daemon-started"
    """The daemon that keeps the events started."""
    DAEMON_STOPPED = "daemon-stopped"
    """The daemon that keeps the events stopped in an orderly way."""
    GAP = "gap"
    """Nothing was recorded for a while, or events were lost."""


class PastEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event. All texts are escaped and bounded (`bounded_text`)."""

    # 16 fields: what a question about the past may name, and what the answer to it says. A `Struct`: a dataclass of
    # so many fields takes as long to make as the rest of the event.

    at: float
    """When it was noticed, in seconds since 1970 by this worker's clock."""
    kind: EventKind
    code: str
    """The code of its message: `VM780`."""
    text: str
    """The message: subject, then state."""
    worker: str | None = None
    """The worker that runs the endpoint, or that was lost; None if the event is about no worker."""
    owner: str | None = None
    """The declaration of the service, `project/service`; None if it is about no service."""
    service: Name | None = None
    """The first routing name of the service; None if it is about no service."""
    names: tuple[Name, ...] = ()
    """The routing names of the service; empty if the event is about an endpoint or no service."""
    vip: Address | None = None
    """The VIP of the service; None if it had none."""
    ports: tuple[int, ...] = ()
    """The listen ports and published ports of the service; empty like `names`."""
    endpoint: str | None = None
    """The id of the endpoint or container; None if it is about neither."""
    name: str | None = None
    """The container's name; None if it has none."""
    address: Address | None = None
    """The address of the endpoint; None if it is about none."""
    reason: str | None = None
    """The answer of the probe, the reason of the drain or problem, or how the process ended; None if there is none."""
    by: str | None = None
    """Who requested a drain or a weight; None if nobody did or if it is not known."""
    exit_code: int | None = None
    """The exit code of the process; None if it has not ended or if the code is not known."""
    signal: str | None = None
    """The signal that ended the process, `SIGKILL`; None if none did."""
    out_of_memory: bool = False
    """Whether the kernel ended the process for want of memory."""


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event as it is kept."""

    number: int
    """Its number on this worker: later events have higher ones, and no number is used twice."""
    event: PastEvent


def bounded_text(text: str, limit: int = MAX_EVENT_TEXT) -> str:
    """Return text from outside on one line: control characters escaped, at most `limit` characters."""
    cut = text if len(text) <= limit else f"{text[: limit - 3]}..."
    if cut.isprintable():
        return cut
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."
