"""Asks the engine which containers have their output collected, and looks at how much of it the rotation keeps."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from mesh.cli.doctor.facts import CollectedOutput
from mesh.config.settings import Settings
from mesh.platform.logs.targets import wanted_logs
from mesh.sources.docker.client import CLIENT_ERRORS, open_client
from mesh.sources.docker.identity import LabelRules, label_constraint
from mesh.sources.docker.instances import container_name, has_mesh_label
from mesh.sources.docker.label_origins import OriginReader
from mesh.sources.docker.log_files import ContainerLog, find_log, list_all_containers

PATIENCE = 5.0
"""Seconds that the engine has for all of its containers; then the ones that it has told of are looked at."""


async def collected_outputs(settings: Settings) -> tuple[CollectedOutput, ...]:
    """Return the running containers whose standard output labels ask for; none if the engine does not answer."""
    found: list[CollectedOutput] = []
    if settings.source_docker_socket is None:
        return ()
    rules = LabelRules(
        settings.source_docker_image_labels, tuple(map(label_constraint, settings.source_docker_require))
    )
    origins = OriginReader()
    with suppress(*CLIENT_ERRORS):
        async with open_client(settings.source_docker_socket, PATIENCE) as docker, asyncio.timeout(PATIENCE):
            containers = [each for each in await list_all_containers(docker) if has_mesh_label(each.labels)]
            await origins.update(docker, containers)
            for container in containers:
                labels, _ = wanted_logs(container, origins.of(container), rules)
                if labels is None or not labels.store or container.state != "running":
                    continue
                log = await find_log(docker, container.id)
                if log is not None:
                    kept = kept_seconds(log, time.time())
                    found.append(
                        CollectedOutput(container_name(container), log.driver, log.rotates, log.most_files, kept)
                    )
    return tuple(found)


def kept_seconds(log: ContainerLog, now: float) -> float | None:
    """Return the age of the oldest lines that a rotation is about to remove; None if it has not come so far, or if
    that cannot be seen. `now` is in seconds since 1970.
    """
    if not log.path or not log.rotates or log.most_files < 2:
        return None
    oldest = Path(f"{log.path}.{log.most_files - 1}")
    for path in (oldest, oldest.with_name(f"{oldest.name}.gz")):
        with suppress(OSError):
            return max(0.0, now - path.stat(follow_symlinks=False).st_mtime)
    return None
