"""What the engine's API answers, as far as it is read: Docker Engine API v1.41, which newer engines answer, too.

Decoded once, at the edge, into typed values: an engine that answers something else is told from one that runs nothing.
"""

from collections.abc import Mapping

import msgspec


class DockerMessage(msgspec.Struct, frozen=True, rename="pascal"):
    """Keys are in Pascal case; what is not listed is not looked at."""


class ContainerPort(DockerMessage, frozen=True):
    """A port of a container, and where the worker publishes it."""

    private_port: int
    type: str = "tcp"
    ip: str = msgspec.field(default="", name="IP")
    public_port: int | None = None


class NetworkAttachment(DockerMessage, frozen=True):
    """A container on one network."""

    ip_address: str = msgspec.field(default="", name="IPAddress")
    ip6_address: str = msgspec.field(default="", name="GlobalIPv6Address")


class HostConfig(DockerMessage, frozen=True):
    """How a container was created."""

    network_mode: str = "default"


class ContainerNetworks(DockerMessage, frozen=True):
    """The networks of one container, by their name."""

    networks: Mapping[str, NetworkAttachment | None] | None = None


class ContainerSummary(DockerMessage, frozen=True):
    """One entry of `GET /containers/json`."""

    id: str
    state: str
    names: list[str] | None = None
    status: str = ""
    """For people, and the only place of the list that tells of the health: `Up 3 seconds (healthy)`."""
    labels: Mapping[str, str] | None = None
    ports: list[ContainerPort] | None = None
    host_config: HostConfig = HostConfig()
    network_settings: ContainerNetworks = ContainerNetworks()


class DockerNetwork(DockerMessage, frozen=True):
    """One entry of `GET /networks`."""

    name: str
    driver: str = ""


class ContainerConfig(DockerMessage, frozen=True):
    """What a container was told about its end."""

    stop_signal: str | None = None
    """`SIGTERM`, `TERM` or `15`; None: SIGTERM."""
    stop_timeout: int | None = None
    """Seconds; None: 10."""


class ContainerState(DockerMessage, frozen=True):
    """A container's process."""

    started_at: str = ""


class ContainerDetails(DockerMessage, frozen=True):
    """`GET /containers/{id}/json`."""

    id: str
    config: ContainerConfig = ContainerConfig()
    state: ContainerState = ContainerState()


class EventActor(msgspec.Struct, frozen=True, rename="pascal"):
    """Whom an event is about."""

    id: str = msgspec.field(default="", name="ID")
    attributes: Mapping[str, str] | None = None
    """The container's labels, its name, and what belongs to the event."""


class DockerEvent(msgspec.Struct, frozen=True):
    """One event of `GET /events`."""

    type: str = msgspec.field(default="", name="Type")
    action: str = msgspec.field(default="", name="Action")
    """`start`, `kill`, `health_status: healthy`."""
    actor: EventActor = msgspec.field(default=EventActor(), name="Actor")
    nanoseconds: int = msgspec.field(default=0, name="timeNano")
    """Of the engine's clock, since 1970."""
