"""Counts the containers of an engine whose labels ask for their logs to be collected."""

from mesh.platform.logs.targets import wanted_logs
from mesh.sources.docker.client import CLIENT_ERRORS, list_containers, open_client
from mesh.sources.docker.identity import LabelRules
from mesh.sources.docker.instances import has_mesh_label
from mesh.sources.docker.label_origins import OriginReader


class WantedLogCounter:
    """Looks at the running containers of an engine."""

    def __init__(self, url: str | None, rules: LabelRules) -> None:
        """`url` is None for a worker without an engine."""
        self._url = url
        self._rules = rules
        self._origins = OriginReader()
        self._last = 0

    async def count(self) -> int:
        """Return how many ask; what was found last if the engine does not answer, which others report."""
        if self._url is None:
            return 0
        try:
            async with open_client(self._url) as docker:
                containers = [each for each in await list_containers(docker) if has_mesh_label(each.labels)]
                await self._origins.update(docker, containers)
        except CLIENT_ERRORS:
            return self._last
        found = (wanted_logs(each, self._origins.of(each), self._rules)[0] for each in containers)
        self._last = sum(labels is not None for labels in found)
        return self._last
