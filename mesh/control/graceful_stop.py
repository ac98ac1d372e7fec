"""Stops containers without failed requests: the traffic ends first, then the process.

There are two ways. `vipmesh stop` drains the endpoint and then has the engine stop the container. A plain `docker stop`
sends the stop signal before vipmesh is notified; a container whose stop signal is the drain signal survives it, is
drained, and is then sent its real signal by `GracefulStopper`. The engine kills the container when its stop timeout is
over in any case, so the real signal is sent before that, with time left to act on it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from mesh.control.drain_requests import DrainRequests
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.part import DaemonPart
from mesh.model.service import DrainReason
from mesh.util.bulkhead import Bulkhead

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.CONTROL_LOOP)

REAL_SIGNAL = "SIGTERM"
"""The signal that a drained container is sent."""
KILL_MARGIN = 2.0
"""Seconds before the engine kills a container at which it is sent its real signal, drained or not; at most half of its
stop timeout.
"""
_LOOK, _UNUSED_LOOKS = 0.1, 10
"""Seconds between two looks at the connections of a container, and the looks in a row that must find none: a drain is
known to all workers within that time.
"""
SETTLE_TIMEOUT = 5.0
"""Seconds that the engine has to report that a container is gone."""


class ContainerEngine(Protocol):
    """The container engine, as far as stopping needs it. Its failures are `ActionRefusedError`."""

    def find(self, name: str) -> str | None:
        """The endpoint of a container, given by its name or ID or by the endpoint's ID; None if there is none."""
        ...

    def forgive(self, endpoint: str) -> None:
        """Forget that the endpoint's container was sent a signal that should end it."""
        ...

    async def connections(self, endpoint: str) -> int | None:
        """The connections that a container has accepted and not closed, from everywhere, by its ID or the endpoint's;
        None if they are not known.
        """
        ...

    async def stop(self, endpoint: str) -> None:
        """Stop the container; return when it has stopped."""
        ...

    async def signal(self, container: str, signal: str) -> None:
        """Send a signal to the container. A container that is gone is not an error."""
        ...


@dataclass(frozen=True, slots=True)
class SignalledContainer:
    """A container that was sent the drain signal."""

    container: str
    endpoint: str | None
    """The endpoint of the container; None if it has none."""
    seconds: float
    """Seconds until the engine kills the container."""


class DrainSignals:
    """Queues containers that were sent the drain signal, from the source that notices them to `GracefulStopper`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[SignalledContainer] = asyncio.Queue()

    def put(self, container: str, endpoint: str | None, seconds: float) -> None:
        """Queue a container that was sent the drain signal and will be killed in `seconds`."""
        self._queue.put_nowait(SignalledContainer(container, endpoint, seconds))

    async def get(self) -> SignalledContainer:
        """Wait for the next container."""
        return await self._queue.get()


class GracefulStopper:
    """Drains endpoints and stops drained containers. `run` handles the containers that were sent the drain signal."""

    def __init__(
        self, drains: DrainRequests, engines: Sequence[ContainerEngine], drain_timeout: float, signals: DrainSignals
    ) -> None:
        """`drain_timeout`: seconds after which the data plane gives up connections that do not end."""
        self._drains = drains
        self._engines = engines
        self._drain_deadline = drain_timeout + SETTLE_TIMEOUT
        self._signals = signals

    async def run(self) -> None:
        """Send the real signal to each container of `signals` once it is drained."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                signalled = await self._signals.get()
                name = f"drain {signalled.container[:12]}"
                tasks.create_task(bulkhead.run(name, self._finish, signalled), name=name)

    async def drain(
        self, name: str, why: DrainReason = DrainReason.ASKED, each_pass: Callable[[int | None], None] = lambda _: None
    ) -> str:
        """Drain the endpoint; return its ID when it has no traffic. It stays drained until `undrain`.

        `each_pass` is that of `DrainRequests.until_free`.
        """
        _, endpoint = self._find(name)
        self._drains.ask(endpoint, why)
        try:
            async with asyncio.timeout(self._drain_deadline):
                await self._drains.until_free(endpoint, each_pass)
        except TimeoutError:
            raise ActionRefusedError(
                Code.DRAIN_TIMEOUT,
                f"{endpoint} takes no new connections but is still in the data plane after {self._drain_deadline:g} s; "
                f"`vipmesh status` lists the parts that do not answer",
            ) from None
        return endpoint

    async def maintain(self, name: str, each_pass: Callable[[int | None], None] = lambda _: None) -> str:
        """Drain the endpoint and stop probing it, so that nothing done to it counts as a failure."""
        return await self.drain(name, DrainReason.MAINTENANCE, each_pass)

    def undrain(self, name: str) -> str:
        """End a drain or a maintenance, and return the endpoint's ID. After a maintenance it serves as soon as a probe
        succeeds.
        """
        engine, endpoint = self._find(name)
        if engine is not None:
            engine.forgive(endpoint)
        self._drains.undo(endpoint)
        return endpoint

    async def stop(self, name: str, each_pass: Callable[[int | None], None] = lambda _: None) -> str:
        """Drain the endpoint, then stop its container; return its ID when it has stopped.

        What `each_pass` raises ends it before the container is stopped; the endpoint takes connections again.
        """
        engine, endpoint = self._find(name)
        if engine is None:
            raise ActionRefusedError(
                Code.CONTAINER_NOT_STOPPED,
                f"{endpoint} is not run by a container engine; drain it, then stop it where it was started",
            )
        try:
            await self.drain(endpoint, each_pass=each_pass)
            with suppress(TimeoutError):  # as with connections through this worker, which are cut then
                async with asyncio.timeout(self._drain_deadline):
                    await self._until_unused(endpoint)
            await engine.stop(endpoint)
            with suppress(TimeoutError):  # an endpoint that is still listed is being stopped, and takes no traffic
                async with asyncio.timeout(SETTLE_TIMEOUT):
                    await self._drains.until_gone(endpoint)
        finally:
            self._drains.undo(endpoint)  # a container that is started again must serve again
        return endpoint

    def find(self, name: str) -> str:
        """Return the ID of the endpoint that a container, or an endpoint, of this worker has. Raises
        `ActionRefusedError`.
        """
        return self._find(name)[1]

    def _find(self, name: str) -> tuple[ContainerEngine | None, str]:
        for engine in self._engines:
            endpoint = engine.find(name)
            if endpoint is not None:
                return engine, endpoint
        if self._drains.knows(name):
            return None, name
        raise ActionRefusedError(
            Code.NO_SUCH_ENDPOINT,
            f"no container or endpoint {name!r} runs on this worker; `vipmesh status` lists the endpoints",
        )

    async def _until_unused(self, endpoint: str) -> None:
        """Return when a container has had no connection for a while, or none of the engines knows.

        Other workers learn of the drain a moment later than this one, and their connections are not in its data plane.
        """
        unused = 0
        while unused < _UNUSED_LOOKS:
            counts = [await engine.connections(endpoint) for engine in self._engines]
            known = [count for count in counts if count is not None]
            if not known:
                return
            unused = 0 if any(known) else unused + 1
            await asyncio.sleep(_LOOK)

    async def _finish(self, signalled: SignalledContainer) -> None:
        # The engine kills the container when its time is over; it needs part of that time to act on the real signal.
        limit = max(signalled.seconds - KILL_MARGIN, signalled.seconds / 2, 0.0)
        if signalled.endpoint is not None:
            try:
                async with asyncio.timeout(limit):
                    await self._drains.until_free(signalled.endpoint)
                    await self._until_unused(signalled.container)
                log.info("%s is drained: sending %s", signalled.endpoint, REAL_SIGNAL)
            except TimeoutError:
                log.warning(
                    "%s is not drained after %.0f s: sending %s anyway; set a longer --stop-timeout to give it time",
                    signalled.endpoint,
                    limit,
                    REAL_SIGNAL,
                    extra=Code.DRAIN_TIMEOUT.extra,
                )
        for engine in self._engines:
            try:
                await engine.signal(signalled.container, REAL_SIGNAL)
            except ActionRefusedError as error:
                log.error("%s", error, extra=error.code.extra)
