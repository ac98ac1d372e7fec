"""Lets new connections wait while an engine restarts, instead of refusing them.

An engine that restarts without live-restore ends its containers and starts them again, most of them within seconds. A
service that has no other endpoint meanwhile would refuse its clients. Their first packets are dropped instead, so that
TCP repeats them, and they are answered as soon as the service is served again.

Only a service that was served until the engine of this worker went away is held, for `seconds` at most, and not again
within `REST`: an engine that fails again and again must not leave clients without an answer.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from mesh.control.planner import Plan, changed_servers
from mesh.host import HostError
from mesh.model.table import Table, VirtualKey, VirtualServer

log = logging.getLogger("vipmesh")

REST = 60.0
"""Seconds after the beginning of a hold until the same virtual server may be held again."""


class ConnectionHolder(Protocol):
    """The packet filter of this host, as far as new connections wait in it."""

    async def keep(self, held: Mapping[VirtualKey, int]) -> None:
        """Hold new connections to these virtual servers for so many seconds, and to no others.

        What ends is forgotten by itself. Raises `HostError`.
        """
        ...


class ConnectionHolds:
    """The virtual servers whose new connections wait."""

    def __init__(self, holder: ConnectionHolder | None, seconds: float, is_engine_away: Callable[[], bool]) -> None:
        """`holder` is None if nothing can be held; then clients are refused. `seconds`: the longest that a connection
        waits; 0 for not at all.
        """
        self._holder = holder
        self._seconds = seconds
        self._is_engine_away = is_engine_away
        self._began: dict[VirtualKey, float] = {}
        """When the hold of each virtual server began last, by the loop's clock; those within `REST`."""
        self._until: dict[VirtualKey, float] = {}
        """When each hold ends."""
        self._is_loaded = True
        """Whether there may be a table: one of a former process holds what it held until that ends by itself."""
        self._began_at = asyncio.get_running_loop().time()
        self._clock = asyncio.get_running_loop().time

    @property
    def held(self) -> frozenset[VirtualKey]:
        """The virtual servers whose new connections wait now."""
        now = self._clock()
        return frozenset(key for key, until in self._until.items() if until > now)

    async def before_pass(self, left: Table, before: Plan | None, planned: Plan) -> None:
        """Hold what is about to lose its last real server. `left`: what is programmed; `before`: the plan of it."""
        if self._holder is None or not self._seconds or before is None or not self._is_engine_away():
            return
        now = self._clock()
        self._began = {key: began for key, began in self._began.items() if began > now - REST}
        new = [key for key in losing_servers(left, before, planned) if key not in self._began]
        if new:
            self._began.update(dict.fromkeys(new, now))
            self._until = {key: end for key, end in self._until.items() if end > now}
            self._until.update(dict.fromkeys(new, now + self._seconds))
            if await self._keep(self._holder):
                log.info(
                    "the container engine is away: new connections to %d virtual servers wait up to %g s",
                    len(new),
                    self._seconds,
                )

    async def after_pass(self, left: Table) -> None:
        """Let go what is served again, or was held long enough. `left`: what is programmed now."""
        now = self._clock()
        if self._holder is None:
            return
        if not self._until:
            if self._is_loaded and now > self._began_at + self._seconds:
                await self._keep(self._holder)
            return
        servers = left.virtual_servers
        kept = {key: end for key, end in self._until.items() if end > now and not _takes_connections(servers.get(key))}
        if len(kept) != len(self._until):
            self._until = kept
            await self._keep(self._holder)

    async def _keep(self, holder: ConnectionHolder) -> bool:
        """Hold what is to be held, and nothing else; return whether that was possible."""
        now = self._clock()
        self._is_loaded = bool(self._until)
        try:
            await holder.keep({key: max(1, math.ceil(end - now)) for key, end in self._until.items()})
        except HostError as error:
            self._until = {}
            log.warning("%s", error, extra=error.code.extra)
            return False
        return True


def losing_servers(left: Table, before: Plan, planned: Plan) -> Collection[VirtualKey]:
    """Return the virtual servers that take connections now and will not after this pass."""
    changed: Iterable[VirtualKey] = changed_servers(before, planned)
    now, then = left.virtual_servers, planned.table.virtual_servers
    return [key for key in changed if _takes_connections(now.get(key)) and not _takes_connections(then.get(key))]


def _takes_connections(server: VirtualServer | None) -> bool:
    return server is not None and any(real.weight for real in server.real_servers.values())
