"""`vipmesh run`: the daemon under a service manager, with settings that can change while it runs.

SIGHUP reads the settings again. If they are the same, only the sources are read again. If they differ, the parts are
stopped and started again in this process: the state of the kernel stays and is adopted, so that no connection breaks. A
user-space data plane ends with its parts; with it, new settings need a restart, and a log line says so. Settings that
cannot be used change nothing.
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
    """Runs a daemon until SIGTERM or SIGINT."""

    def __init__(self, read: Callable[[], Settings], environment: Mapping[str, str]) -> None:
        """`read` returns the settings, or raises `SettingsError`."""
        self._read = read
        self._environment = environment
        self._notify = SystemdNotifier(environment)
        self._stopped = False
        self._stop_parts = asyncio.Event()
        self._running: RunningDaemon | None = None
        self._settings = read()
        self._fallback: Settings | None = None
        """The settings to return to until a start with new ones has succeeded; None if there are none."""

    async def run(self) -> None:
        """Serve until stopped. Raises the exceptions of `run_daemon`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        async with asyncio.TaskGroup() as tasks:
            watchdog = tasks.create_task(self._notify.keep_alive(self._is_alive), name="watchdog")
            try:
                while not self._stopped:
                    self._stop_parts.clear()
                    await self._run_once()
            finally:
                watchdog.cancel()

    async def _run_once(self) -> None:
        """Run until stopped or reloaded. If the new settings fail to start, fall back to the previous ones."""
        try:
            if self._fallback is not None and self._fallback.vip_pool != self._settings.vip_pool:
                await daemon.refuse_overlap(self._settings)
            await daemon.run_daemon(self._settings, self._environment, self._stop_parts, self._started)
        except (StartError, DataPlaneError, StoreError, AdminApiError) as error:
            if self._fallback is None:
                raise
            log.error("%s; the previous settings are used again", error, extra=error.code.extra)
            self._settings, self._fallback = self._fallback, None
        finally:
            self._running = None

    def reload(self) -> None:
        """Read the settings again and apply them."""
        if self._running is None:
            return  # the parts are starting, with the newest settings
        try:
            settings = self._read()
        except SettingsError as error:
            for problem in error.problems:
                log.error("%s", problem, extra=problem.code.extra)
            log.error(
                "the settings are not applied; the previous ones stay in force", extra=Code.SETTINGS_NOT_APPLIED.extra
            )
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
        self._settings, self._fallback = settings, self._settings
        self._notify.reloading()
        self._stop_parts.set()

    def _stop(self) -> None:
        self._stopped = True
        self._notify.stopping()
        self._stop_parts.set()

    def _started(self, running: RunningDaemon) -> None:
        self._running, self._fallback = running, None
        status = running.status()
        self._notify.ready(f"worker {status.worker}, data plane {status.data_plane}")

    def _is_alive(self) -> bool:
        """Whether the control loop runs; True while the parts start, since systemd has a separate start timeout."""
        return self._running is None or self._running.is_alive()


def _differs(name: str, one: Settings, other: Settings) -> bool:
    """Whether a setting differs. Log settings never do: reading the settings applies them, and no part must be
    restarted.
    """
    return not name.startswith("log_") and bool(getattr(one, name) != getattr(other, name))
