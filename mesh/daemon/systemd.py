"""Notifies systemd: ready, reloading, stopping, still alive. sd_notify(3).

One datagram on the socket that the environment names; without it nothing is sent.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

from mesh.model.codes import Code

log = logging.getLogger("vipmesh")


class SystemdNotifier:
    """Sends notifications to the service manager, if there is one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_timeout = _read_watchdog_timeout(environment)

    def ready(self, status: str) -> None:
        """Report that the service works; `status` is a line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Report that the settings are read again; `ready` reports the end of it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report that the service stops."""
        self._send("STOPPING=1")

    async def keep_alive(self, is_alive: Callable[[], bool]) -> None:
        """Send a keep-alive twice per watchdog timeout while `is_alive` is true. Returns at once if there is no
        timeout.
        """
        while self._watchdog_timeout is not None:
            if is_alive():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_timeout / 2)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto(message.encode(), self._address)
            except OSError as error:
                log.warning(
                    "the service manager at %s cannot be notified: %s",
                    self._address,
                    error.strerror,
                    extra=Code.SERVICE_MANAGER_UNREACHABLE.extra,
                )


def _read_watchdog_timeout(environment: Mapping[str, str]) -> float | None:
    """The watchdog timeout in seconds; None if the service manager does not wait for keep-alives."""
    pid, time_out = environment.get("WATCHDOG_PID"), environment.get("WATCHDOG_USEC", "")
    if not time_out.isdigit() or int(time_out) == 0 or (pid is not None and pid != str(os.getpid())):
        return None
    return int(time_out) / 1e6
