"""The command check: does a command inside the container exit with status 0?

Each command starts a process in a container, which costs the engine about 50 ms of CPU time; hundreds of endpoints
would take the CPU time away from the workload. So only a few commands run at a time, and at most `COMMANDS_PER_SECOND`
start per second; waiting for a turn does not count as the endpoint's time. The services share the places
(`mesh.health.checks.command_places`).

If the engine cannot run the command (it restarts, the container is paused), there is no verdict: an engine that is gone
must not empty the data plane.
"""

import time
from typing import Protocol

from mesh.health.checks.command_places import CommandPlaces, PreemptedError
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe

MAX_CONCURRENT_COMMANDS = 4
"""Commands that run at the same time."""
COMMANDS_PER_SECOND = 20.0
"""Commands that start per second."""
_SHOWN = 60


class CommandRunner(Protocol):
    """Runs commands inside endpoints."""

    async def run(self, endpoint: str, command: str, seconds: float) -> tuple[int, str] | None:
        """Run a command for at most `seconds`, then kill what is left of it. Return its exit status and output.

        Return None if it could not be run, which says nothing about the endpoint. Raises `TimeoutError` if it took
        longer.
        """
        ...


class CommandCheck:
    """The `CommandChecker` that limits how many commands run and how often they start."""

    def __init__(
        self, runner: CommandRunner, at_once: int = MAX_CONCURRENT_COMMANDS, rate: float = COMMANDS_PER_SECOND
    ) -> None:
        self._runner = runner
        self._places = CommandPlaces(at_once, rate)

    async def __call__(self, key: str, probe: Probe, /) -> Verdict | None:
        """Run the command of a probe once it is its turn, as `CommandChecker` specifies."""
        begun = time.perf_counter()
        try:
            async with self._places.place(key):
                begun = time.perf_counter()
                ended = await self._runner.run(key, probe.command, probe.timeout)
        except PreemptedError:
            return None
        except TimeoutError:
            return Verdict(False, f"no end in {probe.timeout:g} s", time.perf_counter() - begun)
        if ended is None:
            return None
        status, output = ended
        return Verdict(status == 0, _reason(status, output), time.perf_counter() - begun)


def _reason(status: int, output: str) -> str:
    """Return `exit status 1: no such table`: the status and the last line of the output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = "".join(c if c.isprintable() else "?" for c in lines[-1][:_SHOWN]) if lines else ""
    return f"exit status {status}" + (f": {said}" if said and status else "")
