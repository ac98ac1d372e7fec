"""The responses of the engine's API that are read: Docker Engine API v1.41, which newer engines support too.

They are decoded once, at the edge, into typed values, so that an unexpected response is never taken for an empty list.
"""

from collections.abc import Mapping

import msgspec


class DockerMessage(msgspec.Struct, frozen=True, rename="pascal"):
    """A JSON object with keys in Pascal case. Fields that are not declared are ignored."""


class ContainerPort(DockerMessage, frozen=True):
    """A port of a container, and where the worker publishes it."""

    private_port: int
    type: str = "tcp"
    ip: str = msgspec.field(default="", name="IP")
    public_port: int | None = None


class NetworkAttachment(DockerMessage, frozen=True):
    """The addresses of a container on one network."""

    ip_address: str = msgspec.field(default="", name="IPAddress")
    ip6_address: str = msgspec.field(default="", name="GlobalIPv6Address")


class HostConfig(DockerMessage, frozen=True):
    """Settings from the creation of a container."""

    network_mode: str = "default"


class ContainerNetworks(DockerMessage, frozen=True):
    """The networks of one container, by network name."""

    networks: Mapping[str, NetworkAttachment | None] | None = None


class ContainerSummary(DockerMessage, frozen=True):
    """One entry of `GET /containers/json`."""

    id: str
    state: str
    names: list[str] | None = None
    status: str = ""
    """Text for people, and the only field of the list that contains the health: `Up 3 seconds (healthy)`."""
    labels: Mapping[str, str] | None = None
    ports: list[ContainerPort] | None = None
    host_config: HostConfig = HostConfig()
    network_settings: ContainerNetworks = ContainerNetworks()
    unreadable: str = ""
    """Why a field of the entry cannot be read, in words; empty if all can. The engine has no such field."""


class DockerNetwork(DockerMessage, frozen=True):
    """One entry of `GET /networks`."""

    name: str
    driver: str = ""


class ContainerConfig(DockerMessage, frozen=True):
    """How a container is to be stopped."""

    stop_signal: str | None = None
    """`SIGTERM`, `TERM` or `15`; None: SIGTERM."""
    stop_timeout: int | None = None
    """Seconds; None: 10."""


class ContainerState(DockerMessage, frozen=True):
    """The process of a container."""

    started_at: str = ""


class ContainerDetails(DockerMessage, frozen=True):
    """`GET /containers/{id}/json`."""

    id: str
    config: ContainerConfig = ContainerConfig()
    state: ContainerState = ContainerState()


class EventActor(msgspec.Struct, frozen=True, rename="pascal"):
    """The object that an event is about."""

    id: str = msgspec.field(default="", name="ID")
    attributes: Mapping[str, str] | None = None
    """The container's labels, its name, and further data of the event."""


class DockerEvent(msgspec.Struct, frozen=True):
    """One event of `GET /events`."""

    type: str = msgspec.field(default="", name="Type")
    action: str = msgspec.field(default="", name="Action")
    """`start`, `kill`, `health_status: healthy`."""
    actor: EventActor = msgspec.field(default=EventActor(), name="Actor")
    nanoseconds: int = msgspec.field(default=0, name="timeNano")
    """Time by the engine's clock, since 1970."""
