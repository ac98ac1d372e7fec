"""A check without network: tests set the answer of each endpoint."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe
from mesh.model.service import Address


@dataclass(frozen=True, slots=True)
class RecordedCheck:
    """One call of the check."""

    at: float
    """When it began, in seconds of the event loop's clock."""
    address: Address
    port: int


class FakeCheck:
    """Implements `Check`: gives the configured answer after the configured time. An unknown endpoint refuses.

    It ends within `probe.timeout`, as a real check does, and fails the test if an endpoint is checked twice at once.
    """

    def __init__(self) -> None:
        self.asked: list[RecordedCheck] = []
        """Every call so far, in order."""
        self.cancelled: list[RecordedCheck] = []
        """The calls that were cancelled."""
        self.in_flight = 0
        """The number of calls that run now."""
        self.most_in_flight = 0
        """The largest number of calls that ran at once."""
        self._answers: dict[tuple[Address, int], tuple[bool, str, float]] = {}
        self._mistake: Exception | None = None
        self._busy: Counter[tuple[Address, int]] = Counter()

    def set(self, address: Address, port: int, ok: bool, reason: str, duration: float = 0.0) -> None:
        """Set the answer of an endpoint from the next check on, and the seconds that it takes."""
        self._answers[address, port] = (ok, reason, duration)

    def break_down(self, mistake: Exception) -> None:
        """Raise this error from the next check on, as a defective check would."""
        self._mistake = mistake

    def times(self, address: Address, port: int) -> list[float]:
        """Return when the checks of an endpoint began, in seconds of the event loop's clock."""
        return [asked.at for asked in self.asked if (asked.address, asked.port) == (address, port)]

    async def __call__(self, address: Address, port: int, probe: Probe, /) -> Verdict:
        """Check an endpoint: the signature of `Check`."""
        asked = RecordedCheck(asyncio.get_running_loop().time(), address, port)
        self.asked.append(asked)
        if self._mistake is not None:
            raise self._mistake
        assert not self._busy[address, port], f"{address}:{port} is asked twice at once"
        self._busy[address, port] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(address, port, probe)
        except asyncio.CancelledError:
            self.cancelled.append(asked)
            raise
        finally:
            self._busy[address, port] -= 1
            self.in_flight -= 1

    async def _answer(self, address: Address, port: int, probe: Probe) -> Verdict:
        ok, reason, duration = self._answers.get((address, port), (False, "refused", 0.0))
        await asyncio.sleep(min(duration, probe.timeout))
        if duration > probe.timeout:
            return Verdict(False, f"no answer in {probe.timeout:g} s", probe.timeout)
        return Verdict(ok, reason, duration)
