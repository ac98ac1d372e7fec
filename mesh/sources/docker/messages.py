"""The responses of the engine's API that are read: Docker Engine API v1.41 and later, as Docker and Podman give them.

They are decoded once, at the edge, into typed values, so that an unexpected response is never taken for an empty list.
"""

import re
from collections.abc import Mapping

import msgspec

_PRODUCT_VERSION = re.compile(r"[A-Za-z0-9.+~_-]{1,64}", re.ASCII)


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


class PortBinding(DockerMessage, frozen=True):
    """A port of the worker that a container asks for."""

    host_port: str = ""
    """`8080`; empty, `0` or a range if the engine chooses one."""


class HostConfig(DockerMessage, frozen=True):
    """Settings from the creation of a container."""

    network_mode: str = ""
    """`default`, `host`, `container:ID` or the name of a network; empty in Podman's list."""
    port_bindings: Mapping[str, list[PortBinding] | None] | None = None
    """The worker's ports by container port, `80/tcp`. Lists do not contain it."""


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
    image_id: str = msgspec.field(default="", name="ImageID")
    unreadable: str = ""
    """Why a field of the entry cannot be read, in words; empty if all can. The engine has no such field."""


class DockerNetwork(DockerMessage, frozen=True):
    """One entry of `GET /networks`."""

    name: str
    driver: str = ""


class SubnetConfig(DockerMessage, frozen=True):
    """One subnet of a network."""

    subnet: str = ""


class AddressConfig(DockerMessage, frozen=True):
    """How the addresses of a network are assigned."""

    config: list[SubnetConfig] | None = None


class NetworkDetails(DockerMessage, frozen=True):
    """One entry of `GET /networks`, with what the connectivity test needs."""

    name: str
    driver: str = ""
    internal: bool = False
    """Whether it has no way out, as its operator asked for."""
    ipam: AddressConfig = msgspec.field(default=AddressConfig(), name="IPAM")


class ContainerConfig(DockerMessage, frozen=True):
    """How a container is to be stopped."""

    stop_signal: str | None = None
    """`SIGTERM`, `TERM` or `15`; None: SIGTERM."""
    stop_timeout: int | None = None
    """Seconds; None: 10."""
    labels: Mapping[str, str] | None = None


class HealthcheckState(DockerMessage, frozen=True):
    """The result of the container's HEALTHCHECK."""

    status: str = ""
    """`starting`, `healthy` or `unhealthy`; `none` or empty without a HEALTHCHECK."""


class ContainerState(DockerMessage, frozen=True):
    """The process of a container."""

    started_at: str = ""
    """`2026-11-30T11:59:16.358097495Z` by the engine's clock; the year 1 if it was never started."""
    health: HealthcheckState | None = None
    pid: int = 0
    """0 if no process runs."""


class ContainerDetails(DockerMessage, frozen=True):
    """`GET /containers/{id}/json`."""

    id: str
    image: str = ""
    """The ID of the image."""
    config: ContainerConfig = ContainerConfig()
    state: ContainerState = ContainerState()
    host_config: HostConfig = HostConfig()


class ImageConfig(DockerMessage, frozen=True):
    """What an image gives to its containers."""

    labels: Mapping[str, str] | None = None


class ImageDetails(DockerMessage, frozen=True):
    """`GET /images/{id}/json`."""

    config: ImageConfig | None = None


class SwarmNode(DockerMessage, frozen=True):
    """The part of an engine in a swarm."""

    node_id: str = msgspec.field(default="", name="NodeID")
    control_available: bool = False
    """Whether it is a manager that answers."""


class SwarmInfo(DockerMessage, frozen=True):
    """`GET /info`, as far as it is about the swarm."""

    swarm: SwarmNode | None = None


class TaskContainerSpec(DockerMessage, frozen=True):
    """The container of a task as its service declares it."""

    labels: Mapping[str, str] | None = None


class TaskSpec(DockerMessage, frozen=True):
    """A task as its service declares it."""

    container_spec: TaskContainerSpec | None = None


class TaskContainerStatus(DockerMessage, frozen=True):
    """The container that a task runs."""

    container_id: str = msgspec.field(default="", name="ContainerID")


class TaskStatus(DockerMessage, frozen=True):
    """The state of a task."""

    container_status: TaskContainerStatus | None = None


class SwarmTask(DockerMessage, frozen=True):
    """One entry of `GET /tasks`."""

    spec: TaskSpec = TaskSpec()
    status: TaskStatus = TaskStatus()


class EngineVersion(msgspec.Struct, frozen=True):
    """`GET /version`. The fields may have any type: another program may answer."""

    api_version: object = msgspec.field(default=None, name="ApiVersion")
    min_api_version: object = msgspec.field(default=None, name="MinAPIVersion")
    version: object = msgspec.field(default=None, name="Version")
    components: object = msgspec.field(default=None, name="Components")

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman's service for Docker clients."""
        parts = self.components if isinstance(self.components, list) else []
        return any(isinstance(part, dict) and part.get("Name") == "Podman Engine" for part in parts)

    @property
    def product(self) -> str:
        """The name and version of the engine: `Docker 28.1.1`."""
        version = self.version if isinstance(self.version, str) and _PRODUCT_VERSION.fullmatch(self.version) else "?"
        return f"{'Podman' if self.is_podman else 'Docker'} {version}"


class EngineError(msgspec.Struct, frozen=True):
    """A response with a status of 400 or more."""

    message: str


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
