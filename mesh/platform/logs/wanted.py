"""Finds the services of an engine whose labels ask for their logs to be collected."""

from mesh.platform.logs.targets import service_of, wanted_logs
from mesh.sources.docker.client import CLIENT_ERRORS, list_containers, open_client
from mesh.sources.docker.identity import LabelRules
from mesh.sources.docker.instances import has_mesh_label
from mesh.sources.docker.label_origins import OriginReader


class WantedLogFinder:
    """Looks at the running containers of an engine."""

    def __init__(self, url: str | None, rules: LabelRules) -> None:
        """`url` is None for a worker without an engine."""
        self._url = url
        self._rules = rules
        self._origins = OriginReader()
        self._last: tuple[str, ...] = ()

    async def find(self) -> tuple[str, ...]:
        """Return the services, by name; what was found last if the engine does not answer, which others report."""
        if self._url is None:
            return ()
        try:
            async with open_client(self._url) as docker:
                containers = [each for each in await list_containers(docker) if has_mesh_label(each.labels)]
                await self._origins.update(docker, containers)
        except CLIENT_ERRORS:
            return self._last
        asking = [each for each in containers if wanted_logs(each, self._origins.of(each), self._rules)[0] is not None]
        self._last = tuple(sorted({service_of(each, self._origins.of(each)) for each in asking}))
        return self._last
