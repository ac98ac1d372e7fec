"""Telling systemd: ready, reloading, stopping, still alive. sd_notify(3).

One datagram on the socket that the environment names; without it nobody waits and nothing is sent.
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
    """The socket of the service manager, if there is one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        place = environment.get("NOTIFY_SOCKET", "")
        self._place = "\0" + place[1:] if place.startswith("@") else place
        self._patience = _seconds(environment)

    def ready(self, status: str) -> None:
        """The service does its work; `status` is a line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """The settings are being read again; `ready` tells the end of it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1")

    async def keep_alive(self, is_alive: Callable[[], bool]) -> None:
        """Say so twice in the time that the manager waits, while it is true; without such a time return at once."""
        while self._patience is not None:
            if is_alive():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self._patience / 2)

    def _send(self, message: str) -> None:
        if not self._place:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            try:
                told.sendto(message.encode(), self._place)
            except OSError as error:
                log.warning(
                    "the service manager at %s cannot be told: %s",
                    self._place,
                    error.strerror,
                    extra=Code.SERVICE_MANAGER_UNREACHABLE.extra,
                )


def _seconds(environment: Mapping[str, str]) -> float | None:
    """How long the manager waits for a sign of life; None: it does not."""
    pid, time_out = environment.get("WATCHDOG_PID"), environment.get("WATCHDOG_USEC", "")
    if not time_out.isdigit() or int(time_out) == 0 or (pid is not None and pid != str(os.getpid())):
        return None
    return int(time_out) / 1e6
