"""Stops containers and sends signals to them.

It is separate from the source, which only reads, and has its own connection, so that a stop that takes half a minute
does not delay events.
"""

import asyncio
from collections.abc import Callable

import aiodocker

from mesh.model.codes import Code
from mesh.sources.docker.client import CLIENT_ERRORS, explain_failure, open_client
from mesh.sources.docker.served_connections import accepted_connections
from mesh.sources.docker.source import DockerSource

_GONE = frozenset({404, 409})
"""HTTP statuses: no such container; it does not run."""
_STOPPED = 3600.0
"""Seconds. The call returns when the container has ended, at the latest when the engine kills it after its stop
timeout.
"""


class DockerEngine:
    """Stops and signals the containers behind a `DockerSource`'s endpoints. Endpoint IDs end in the container's ID."""

    def __init__(self, url: str, source: DockerSource, failure: Callable[[Code, str], Exception]) -> None:
        """`failure` makes the exception to raise, from a code and a message, if the engine does not do what it must."""
        self._url = url
        self._source = source
        self._failure = failure

    def find(self, name: str) -> str | None:
        """Return the endpoint of a container by its name or ID, or by the endpoint's ID; None if there is none."""
        return self._source.find(name)

    def forgive(self, endpoint: str) -> None:
        """Forget that the endpoint was sent a signal that should end it."""
        self._source.forgive(endpoint)

    async def connections(self, endpoint: str) -> int | None:
        """Return the connections that the container has accepted, from everywhere; None if they are not known."""
        container = _container(endpoint)
        return await asyncio.to_thread(accepted_connections, container, self._source.process_of(container))

    async def stop(self, endpoint: str) -> None:
        """Stop the container and wait until it has stopped."""
        try:
            async with open_client(self._url, _STOPPED) as docker:
                await docker.containers.container(_container(endpoint)).stop()
        except CLIENT_ERRORS as error:
            reason = f"{endpoint} cannot be stopped: docker engine at {self._url}: {explain_failure(error)}"
            raise self._failure(Code.CONTAINER_NOT_STOPPED, reason) from error

    async def signal(self, container: str, signal: str) -> None:
        """Send a signal. A container that is gone is no error."""
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
