"""Stopping containers so that nobody notices: first the traffic goes, then the process.

Two ways lead here. `vipmesh stop` drains and then has the engine stop the container. A plain `docker stop` sends the
stop signal before anybody hears of it; a container whose stop signal is the drain signal lives on, is drained, and gets
its real signal from here. The engine kills it when its stop timeout is over, whatever happens here, so the real signal
goes out before that, with time left to act on it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from mesh.control.drain_requests import DrainRequests
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.service import DrainReason

ActionHandler = Callable[[str], Awaitable[str]]
"""Does something to the endpoint or container that is named; returns the endpoint's id. Raises `ActionRefusedError`."""


log = logging.getLogger("vipmesh")

REAL_SIGNAL = "SIGTERM"
"""What a container gets when it is drained."""
KILL_MARGIN = 2.0
"""Seconds before the engine kills that a container gets its real signal, drained or not; at most half its time."""
SETTLE_TIMEOUT = 5.0
"""Seconds that the engine gets to tell that a container is gone."""


class ContainerEngine(Protocol):
    """What runs the containers. An error of the engine is a `ActionRefusedError`."""

    def find(self, name: str) -> str | None:
        """The endpoint of a container, given by its name or id, or by the endpoint's id; None: there is none."""
        ...

    def forgive(self, endpoint: str) -> None:
        """Forget that it was sent a signal that should end it."""
        ...

    async def stop(self, endpoint: str) -> None:
        """Stop the container; returns when it has stopped."""
        ...

    async def signal(self, container: str, signal: str) -> None:
        """Send a signal; a container that is gone is no error."""
        ...


@dataclass(frozen=True, slots=True)
class SignalledContainer:
    """A container that was sent the drain signal."""

    container: str
    endpoint: str | None
    """Its endpoint; None: it has none."""
    seconds: float
    """Until the engine kills it."""


class DrainSignals:
    """Queues the containers that were sent the drain signal, from who hears of them to who drains them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[SignalledContainer] = asyncio.Queue()

    def put(self, container: str, endpoint: str | None, seconds: float) -> None:
        """A container was sent the drain signal, and will be killed in so many seconds."""
        self._queue.put_nowait(SignalledContainer(container, endpoint, seconds))

    async def get(self) -> SignalledContainer:
        """The next one."""
        return await self._queue.get()


class GracefulStopper:
    """Drains, and stops what is drained. `run` serves the containers that were sent the drain signal."""

    def __init__(
        self, leaving: DrainRequests, engines: Sequence[ContainerEngine], drain_timeout: float, signals: DrainSignals
    ) -> None:
        """`drain_timeout`: seconds after which the data plane has given up connections that do not end."""
        self._leaving = leaving
        self._engines = engines
        self._patience = drain_timeout + SETTLE_TIMEOUT
        self._signals = signals

    async def run(self) -> None:
        """Send the real signal to each container of `signals`, when it is drained."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                one = await self._signals.get()
                tasks.create_task(self._finish(one), name=f"drain {one.container[:12]}")

    async def drain(self, name: str, why: DrainReason = DrainReason.ASKED) -> str:
        """Drain the endpoint; returns its id when it has no traffic any more. It stays drained until `undrain`."""
        _, endpoint = self._find(name)
        self._leaving.ask(endpoint, why)
        try:
            async with asyncio.timeout(self._patience):
                await self._leaving.until_free(endpoint)
        except TimeoutError:
            raise ActionRefusedError(
                Code.DRAIN_TIMEOUT,
                f"{endpoint} takes no new connection and is still programmed after {self._patience:g} s; "
                f"`vipmesh status` says what is frozen",
            ) from None
        return endpoint

    async def maintain(self, name: str) -> str:
        """As `drain`, and it is not probed either: nothing that is done to it counts as a failure."""
        return await self.drain(name, DrainReason.MAINTENANCE)

    def undrain(self, name: str) -> str:
        """The endpoint takes connections again, after a maintenance as soon as it has answered; returns its id."""
        engine, endpoint = self._find(name)
        if engine is not None:
            engine.forgive(endpoint)
        self._leaving.undo(endpoint)
        return endpoint

    async def stop(self, name: str) -> str:
        """Drain the endpoint, then stop its container; returns its id when it has stopped."""
        engine, endpoint = self._find(name)
        if engine is None:
            raise ActionRefusedError(
                Code.CONTAINER_NOT_STOPPED,
                f"no container engine runs {endpoint}; drain it, and stop it where it was started",
            )
        try:
            await self.drain(endpoint)
            await engine.stop(endpoint)
            with suppress(TimeoutError):  # what is still listed is being stopped, and takes nothing either
                async with asyncio.timeout(SETTLE_TIMEOUT):
                    await self._leaving.until_gone(endpoint)
        finally:
            self._leaving.undo(endpoint)  # started again, it serves again
        return endpoint

    def verbs(self) -> Mapping[str, ActionHandler]:
        """What the admin API offers of it."""

        async def undrain(name: str) -> str:
            return self.undrain(name)

        return {"drain": self.drain, "maintenance": self.maintain, "undrain": undrain, "stop": self.stop}

    def _find(self, name: str) -> tuple[ContainerEngine | None, str]:
        for engine in self._engines:
            endpoint = engine.find(name)
            if endpoint is not None:
                return engine, endpoint
        if self._leaving.knows(name):
            return None, name
        raise ActionRefusedError(
            Code.NO_SUCH_ENDPOINT, f"no container or endpoint {name!r} runs on this worker; `vipmesh status` lists them"
        )

    async def _finish(self, one: SignalledContainer) -> None:
        limit = max(one.seconds - KILL_MARGIN, one.seconds / 2, 0.0)
        if one.endpoint is not None:
            try:
                async with asyncio.timeout(limit):
                    await self._leaving.until_free(one.endpoint)
                log.info("%s is drained: sending %s", one.endpoint, REAL_SIGNAL)
            except TimeoutError:
                log.warning(
                    "%s is not drained after %.0f s: sending %s all the same; a longer --stop-timeout gives it time",
                    one.endpoint,
                    limit,
                    REAL_SIGNAL,
                    extra=Code.DRAIN_TIMEOUT.extra,
                )
        for engine in self._engines:
            try:
                await engine.signal(one.container, REAL_SIGNAL)
            except ActionRefusedError as error:
                log.error("%s", error, extra=error.code.extra)
