"""Runs only the commands that this worker's own labels declare.

A probe that is a command comes to the prober from the cluster view, which any worker, or whoever writes the store, has
a part in. A command runs as the user of a container on this host, so it must be the word of that container's own
labels.
"""

from collections.abc import Iterable, Mapping

from typing_extensions import override

from mesh.health.checks.command import CommandRunner
from mesh.model.eligibility import probe_of
from mesh.model.probe import ProbeKind
from mesh.model.service import Endpoint, Service


class DeclaredCommands:
    """The commands that the labels of this worker's own endpoints declare. Empty until its sources have answered."""

    def __init__(self) -> None:
        self._commands: Mapping[str, str] = {}
        """The command of each endpoint that has one, by the ID of the endpoint."""
        self._checks: Mapping[str, str] = {}
        """The same for checks of releases."""

    def declare(self, services: Iterable[Service], endpoints: Iterable[Endpoint]) -> None:
        """Replace them by the commands of these services and endpoints, which this worker runs itself."""
        known = {service.owner: service for service in services}
        probes = ((e.id, probe_of(known[e.owner], e)) for e in endpoints if e.owner in known)
        self._commands = {
            id: probe.command for id, probe in probes if probe is not None and probe.kind is ProbeKind.COMMAND
        }

    def declare_checks(self, commands: Mapping[str, str]) -> None:
        """Replace the commands of checks of releases by these, which the labels of own endpoints declare, by ID."""
        self._checks = commands

    def allows(self, endpoint: str, command: str) -> bool:
        """Whether the labels of the endpoint, given by its ID, declare this command."""
        return command in (self._commands.get(endpoint), self._checks.get(endpoint))


class DeclaredCommandRunner(CommandRunner):
    """Runs a command only if the endpoint's own labels declare it; nothing is said of the endpoint otherwise."""

    def __init__(self, runner: CommandRunner, declared: DeclaredCommands) -> None:
        self._runner = runner
        self._declared = declared

    @override
    async def run(self, endpoint: str, command: str, seconds: float) -> tuple[int, str] | None:
        if not self._declared.allows(endpoint, command):
            return None
        return await self._runner.run(endpoint, command, seconds)
