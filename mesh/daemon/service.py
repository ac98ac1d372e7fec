"""`vipmesh run`: the daemon under a service manager, and with settings that change while it runs.

SIGHUP reads the settings again. If they are the same, the sources are read again and that is all. If they differ, the
parts are ended and made anew in this process: what is in the kernel stays and is adopted, so that no connection
breaks. A data plane in user space ends with its parts; there new settings wait for a restart, and the log says so.
Settings that cannot be used change nothing.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import fields

from mesh.api.http.server import AdminApiError
from mesh.config.settings import Settings
from mesh.daemon import wiring as daemon
from mesh.daemon.systemd import SystemdNotifier
from mesh.daemon.wiring import RunningDaemon, StartError
from mesh.dataplane import DataPlaneError
from mesh.dataplane.userspace import UserspaceDataPlane
from mesh.model.codes import Code
from mesh.model.errors import SettingsError
from mesh.store import StoreError

log = logging.getLogger("vipmesh")


class DaemonService:
    """A daemon from its start to SIGTERM or SIGINT."""

    def __init__(self, read: Callable[[], Settings], environment: Mapping[str, str]) -> None:
        """`read` gives the settings, or raises `SettingsError`."""
        self._read = read
        self._environment = environment
        self._notify = SystemdNotifier(environment)
        self._over = False
        self._ended = asyncio.Event()
        self._running: RunningDaemon | None = None
        self._settings = read()
        self._before: Settings | None = None
        """The settings to go back to, until a start with new ones has succeeded."""

    async def run(self) -> None:
        """Serve until told to end. Raises what `daemon.run` raises."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        async with asyncio.TaskGroup() as tasks:
            watchdog = tasks.create_task(self._notify.keep_alive(self._is_alive), name="watchdog")
            try:
                while not self._over:
                    self._ended.clear()
                    await self._run_once()
            finally:
                watchdog.cancel()

    async def _run_once(self) -> None:
        """Until told to end or to begin anew. New settings with which nothing starts give way to the old ones."""
        try:
            await daemon.run_daemon(self._settings, self._environment, self._ended, self._started)
        except (StartError, DataPlaneError, StoreError, AdminApiError) as error:
            if self._before is None:
                raise
            log.error("%s; back to the settings before", error, extra=error.code.extra)
            self._settings, self._before = self._before, None
        finally:
            self._running = None

    def reload(self) -> None:
        """Read the settings again and follow them."""
        if self._running is None:
            return  # it is being made anew, with the newest settings
        try:
            settings = self._read()
        except SettingsError as error:
            for problem in error.problems:
                log.error("%s", problem, extra=problem.code.extra)
            log.error("the settings stay as they were", extra=Code.SETTINGS_NOT_APPLIED.extra)
            return
        changed = [field.name for field in fields(Settings) if _differs(field.name, settings, self._settings)]
        in_user_space = self._running.status().data_plane == UserspaceDataPlane.name
        if not changed or in_user_space:
            if changed:
                log.warning(
                    "changed settings need a restart, which ends the proxy's connections: %s",
                    ", ".join(changed),
                    extra=Code.SETTINGS_NOT_APPLIED.extra,
                )
            self._running.reload()
            return
        log.info("changed settings: %s", ", ".join(changed))
        self._settings, self._before = settings, self._settings
        self._notify.reloading()
        self._ended.set()

    def _stop(self) -> None:
        self._over = True
        self._notify.stopping()
        self._ended.set()

    def _started(self, running: RunningDaemon) -> None:
        self._running, self._before = running, None
        status = running.status()
        self._notify.ready(f"worker {status.worker}, data plane {status.data_plane}")

    def _is_alive(self) -> bool:
        """While it starts it is; systemd has a time of its own for that."""
        return self._running is None or self._running.is_alive()


def _differs(name: str, one: Settings, other: Settings) -> bool:
    """But for the log: whoever reads the settings has changed that already, and nothing need be made anew for it."""
    return not name.startswith("log_") and bool(getattr(one, name) != getattr(other, name))
