"""Asks an engine where it has the logs and the files of its containers."""

import json
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

import aiodocker
import msgspec

from mesh.sources.docker.client import EventStream, open_events, translate_surprises
from mesh.sources.docker.container_files import (
    ContainerFilesystem,
    MountDetails,
    StorageDriverDetails,
    container_filesystem,
)
from mesh.sources.docker.gate import convert_containers
from mesh.sources.docker.messages import ContainerSummary, DockerMessage

READABLE_DRIVER = "json-file"
_FILTERS = json.dumps({"type": ["container"], "event": ["start", "die", "destroy"]})


class LogDriverConfig(DockerMessage, frozen=True):
    """The log driver of a container."""

    type: str = ""
    config: Mapping[str, object] | None = None
    """Its options: `max-size`, `max-file`."""


class LogHostConfig(DockerMessage, frozen=True):
    """Settings from the creation of a container, as far as they are about its logs."""

    log_config: LogDriverConfig = LogDriverConfig()
    tmpfs: Mapping[str, str] | None = None
    """Options by destination, of `--tmpfs`: they are not among the mounts."""


class LoggedContainerConfig(DockerMessage, frozen=True):
    """The configuration of a container, as far as documents have it."""

    image: str = ""


class LoggedContainer(DockerMessage, frozen=True):
    """`GET /containers/{id}/json`, as far as it is about the log."""

    id: str
    log_path: str = ""
    host_config: LogHostConfig = LogHostConfig()
    config: LoggedContainerConfig = LoggedContainerConfig()
    mounts: list[MountDetails] | None = None
    graph_driver: StorageDriverDetails | None = None


@dataclass(frozen=True, slots=True)
class ContainerLog:
    """Where the log of a container is."""

    driver: str
    """`json-file`, `journald`, `none`."""
    path: str
    """Empty for other drivers than `json-file`, and before the first start of the container."""
    image: str
    """As the container was created with: `registry/web:1`."""
    filesystem: ContainerFilesystem
    rotates: bool = False
    """Whether the engine begins another file when one is full."""
    most_files: int = 1
    """How many files it keeps of one log."""


async def list_all_containers(docker: aiodocker.Docker) -> list[ContainerSummary]:
    """Return all containers, those that do not run included. Raises `CLIENT_ERRORS`."""
    with translate_surprises():
        found = await docker.containers.list(all=True)
    return convert_containers(found)


async def find_log(docker: aiodocker.Docker, id: str) -> ContainerLog | None:
    """Return where the log of a container is; None if it is gone or does not tell. Raises `CLIENT_ERRORS`."""
    try:
        with translate_surprises():
            shown = await docker.containers.container(id).show()
        told = msgspec.convert(shown, LoggedContainer)
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError):
        return None
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return None
    path = told.log_path if told.log_path.startswith("/") and "\0" not in told.log_path else ""
    files = container_filesystem(told.mounts, told.host_config.tmpfs, told.graph_driver)
    driver = told.host_config.log_config
    return ContainerLog(driver.type, path, told.config.image, files, *_rotation(driver.config or {}))


def _rotation(options: Mapping[str, object]) -> tuple[bool, int]:
    """Return whether the engine rotates a log, and how many files it keeps: one, if it is not told."""
    most = options.get("max-file")
    is_number = isinstance(most, str) and re.fullmatch("[1-9][0-9]{0,5}", most, re.ASCII) is not None
    return bool(options.get("max-size")), int(str(most)) if is_number else 1


def open_container_events(docker: aiodocker.Docker) -> AbstractAsyncContextManager[EventStream]:
    """Request the events of containers that come and go, from now on."""
    return open_events(docker, filters=_FILTERS)


class LoggedLines(NamedTuple):
    """What the engine has sent of the log of a container."""

    data: bytes
    """As it is; `parse_container_lines` reads it."""
    is_whole: bool
    """Whether that is all; otherwise the newest lines are missing."""


async def read_container_lines(
    docker: aiodocker.Docker, id: str, *, since: int, tail: int | None, most: int
) -> LoggedLines | None:
    """Return what a container has written, at most about `most` bytes; None if it is gone or its driver keeps no lines.

    `since` is in nanoseconds since 1970, 0 for all; `tail` is how many of the newest lines. Raises `CLIENT_ERRORS`.
    """
    params = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": "all" if tail is None else str(tail)}
    if since:
        params["since"] = f"{since // 1_000_000_000}.{since % 1_000_000_000:09d}"
    url = f"{docker.docker_host}/{docker.api_version}/containers/{quote(id, safe='')}/logs"
    received = bytearray()
    async with docker.session.get(url, params=params) as response:
        if response.status in (404, 409, 501):
            return None
        if response.status != 200:
            raise aiodocker.DockerError(response.status, "it does not send the log of a container")
        async for chunk in response.content.iter_any():
            received += chunk
            if len(received) > most:
                return LoggedLines(bytes(received), is_whole=False)
    return LoggedLines(bytes(received), is_whole=True)
