"""Where workers put the usage of their containers: apart from the records that every worker watches.

A value that its worker does not write again is gone after `USAGE_LIFETIME`. What is lost is told again ten seconds
later, so nothing here is durable.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from typing_extensions import override

USAGE_LIFETIME = 60
"""Seconds for which a value stays that is not written again."""


class UsageStore(Protocol):
    """The usage records of all workers. Both methods raise `StoreError` if the store does not answer or refuses."""

    async def write(self, key: str, value: bytes) -> None:
        """Write the value of this worker."""
        ...

    async def read(self) -> Mapping[str, bytes]:
        """Return the values of all workers, by key."""
        ...

    async def close(self) -> None:
        """Close sockets. Values stay for their lifetime."""
        ...


class LocalUsageStore(UsageStore):
    """Keeps the usage of the only worker in its process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns seconds of a monotonic clock."""
        self._clock = clock
        self._values: dict[str, tuple[bytes, float]] = {}

    @override
    async def write(self, key: str, value: bytes) -> None:
        self._values[key] = value, self._clock()

    @override
    async def read(self) -> Mapping[str, bytes]:
        now = self._clock()
        self._values = {key: kept for key, kept in self._values.items() if now - kept[1] < USAGE_LIFETIME}
        return {key: value for key, (value, _) in self._values.items()}

    @override
    async def close(self) -> None:
        self._values.clear()
