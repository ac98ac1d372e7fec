"""What is done to containers: stop them, signal them.

Apart from the source, which only looks: this has a connection of its own, so that a stop that takes half a minute holds
up no event.
"""

from collections.abc import Callable

import aiodocker

from mesh.model.codes import Code
from mesh.sources.docker.client import CLIENT_ERRORS, explain_failure, open_client
from mesh.sources.docker.source import DockerSource

_GONE = frozenset({404, 409})
"""No such container; it does not run."""
_STOPPED = 3600.0
"""Seconds; a container ends when it has ended, or when its own stop timeout is over and the engine kills it."""


class DockerEngine:
    """The containers behind the endpoints of one `DockerSource`. Endpoint ids end in the container's."""

    def __init__(self, url: str, source: DockerSource, failure: Callable[[Code, str], Exception]) -> None:
        """`failure` makes what is raised, of a code and words for the user, when the engine cannot do what is asked."""
        self._url = url
        self._source = source
        self._failure = failure

    def find(self, name: str) -> str | None:
        """The endpoint of a container by its name or id, or by the endpoint's id; None: there is none."""
        return self._source.find(name)

    def forgive(self, endpoint: str) -> None:
        """Forget that it was sent a signal that should end it."""
        self._source.forgive(endpoint)

    async def stop(self, endpoint: str) -> None:
        """Stop the container; returns when it has stopped."""
        try:
            async with open_client(self._url, _STOPPED) as docker:
                await docker.containers.container(_container(endpoint)).stop()
        except CLIENT_ERRORS as error:
            reason = f"{endpoint} cannot be stopped: docker engine at {self._url}: {explain_failure(error)}"
            raise self._failure(Code.CONTAINER_NOT_STOPPED, reason) from error

    async def signal(self, container: str, signal: str) -> None:
        """Send a signal; a container that is gone is no error."""
        try:
            async with open_client(self._url) as docker:
                await docker.containers.container(container).kill(signal=signal)
        except aiodocker.DockerError as error:
            if error.status not in _GONE:
                raise self._not_signalled(container, error) from error
        except CLIENT_ERRORS as error:
            raise self._not_signalled(container, error) from error

    def _not_signalled(self, container: str, error: Exception) -> Exception:
        return self._failure(
            Code.CONTAINER_NOT_STOPPED, f"{container[:12]} cannot be signalled: {explain_failure(error)}"
        )


def _container(endpoint: str) -> str:
    return endpoint.rpartition("/")[2]
