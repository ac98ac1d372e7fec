"""Endpoints that exist only as answers: the `Check` for tests of what asks them."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe
from mesh.model.service import Address


@dataclass(frozen=True, slots=True)
class RecordedCheck:
    """One question that was put: when (the loop's clock), and to whom."""

    at: float
    address: Address
    port: int


class FakeCheck:
    """Answers as told, in the time it is told to take; an endpoint that nobody has set up refuses.

    Like a real check it is done within `probe.timeout`. It fails the test if one endpoint is asked while it is still
    being asked.
    """

    def __init__(self) -> None:
        self.asked: list[RecordedCheck] = []
        self.cancelled: list[RecordedCheck] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._answers: dict[tuple[Address, int], tuple[bool, str, float]] = {}
        self._mistake: Exception | None = None
        self._busy: Counter[tuple[Address, int]] = Counter()

    def set(self, address: Address, port: int, ok: bool, reason: str, duration: float = 0.0) -> None:
        """What an endpoint answers from the next check on, and how many seconds it takes for it."""
        self._answers[address, port] = (ok, reason, duration)

    def break_down(self, mistake: Exception) -> None:
        """Raise this from the next check on, as a check with a mistake in it would."""
        self._mistake = mistake

    def times(self, address: Address, port: int) -> list[float]:
        """When an endpoint was asked."""
        return [asked.at for asked in self.asked if (asked.address, asked.port) == (address, port)]

    async def __call__(self, address: Address, port: int, probe: Probe, /) -> Verdict:
        """A `Check`."""
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
