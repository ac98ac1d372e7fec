"""Asks an engine where the labels of containers come from: from their images, and from tasks of a swarm."""

import asyncio
from collections.abc import Mapping, Sequence

import aiodocker

from mesh.sources.docker.client import list_swarm_tasks, read_image_labels, read_together
from mesh.sources.docker.identity import LabelOrigins, has_swarm_label
from mesh.sources.docker.messages import ContainerSummary

MAX_CONCURRENT_READS = 16
"""Images that are read at the same time."""
CONFIRMATION = 10.0
"""Seconds after the first look at a container within which its manager has to learn of it."""

SWARM_ANSWER = 2.0
"""Seconds that the engine has for what it asks its swarm for, tasks and networks: less than for its containers."""


class OriginReader:
    """Keeps the labels of the images in use, and which containers are of tasks. An image never changes its labels."""

    def __init__(self) -> None:
        self.images: dict[str, Mapping[str, str]] = {}
        """The labels of each image that a labelled container uses, by the ID of the image."""
        self.tasks: dict[str, Mapping[str, str]] | None = None
        """The labels of tasks by container ID; None if the engine is no manager of a swarm."""
        self.awaited: frozenset[str] = frozenset()
        """Containers that the manager may yet learn to be of a task."""
        self._first_seen: dict[str, float] = {}
        """When a container was seen first that no task is known of, by its ID."""

    async def update(self, docker: aiodocker.Docker, containers: Sequence[ContainerSummary]) -> bool:
        """Read what is not known yet of these containers. Return whether to ask again soon, because a manager may learn
        of a container yet. Raises `CLIENT_ERRORS`.
        """
        wanted = {container.image_id for container in containers} - {""}
        self.images = {id: labels for id, labels in self.images.items() if id in wanted}
        new, room = sorted(wanted - self.images.keys()), asyncio.Semaphore(MAX_CONCURRENT_READS)

        async def read(id: str) -> Mapping[str, str]:
            async with room:
                return await read_image_labels(docker, id)

        self.images.update(zip(new, await read_together(map(read, new)), strict=True))
        return await self._update_tasks(docker, [c.id for c in containers if has_swarm_label(c.labels)])

    def of(self, container: ContainerSummary) -> LabelOrigins:
        """Return where the labels of a container come from, by the last update."""
        return LabelOrigins(
            self.images.get(container.image_id, {}),
            asks_manager=self.tasks is not None,
            task=None if self.tasks is None else self.tasks.get(container.id),
        )

    async def _update_tasks(self, docker: aiodocker.Docker, containers: Sequence[str]) -> bool:
        # The container of a task is the same for as long as both exist: a task that is gone from the manager's list
        # may still drain.
        known = {id: labels for id, labels in (self.tasks or {}).items() if id in containers}
        self.tasks = known if self.tasks is not None else None
        self.awaited = frozenset()
        if known.keys() >= set(containers):
            self._first_seen.clear()
            return False
        try:
            async with asyncio.timeout(SWARM_ANSWER):
                tasks = await list_swarm_tasks(docker)
        except TimeoutError:
            if self.tasks is None:
                raise
            # A swarm that has just lost its leader answers nothing, and the engine itself goes on: what is known of
            # its tasks stays, new ones wait, and all other containers come and go.
            self.awaited = frozenset(containers) - known.keys()
            return True
        if tasks is None:
            self.tasks = None
            return False
        self.tasks = {**known, **{id: labels for id, labels in tasks.items() if id in containers}}
        now = asyncio.get_running_loop().time()
        missing = set(containers) - self.tasks.keys()
        self._first_seen = {id: self._first_seen.get(id, now) for id in missing}
        self.awaited = frozenset(id for id, since in self._first_seen.items() if now - since < CONFIRMATION)
        return bool(self.awaited)
