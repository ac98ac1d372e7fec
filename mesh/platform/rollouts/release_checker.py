"""Runs the checks of new releases on this worker, a round every few seconds while a rollout runs.

Each round asks one own instance of each new release, the next one each time. A command comes from the container's own
labels and runs inside the container, in the places of probes that are commands. A URL with another host than
`container` is asked at an address that was looked at after the name was resolved, so that no spelling and no second
answer of a name server leads elsewhere.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mesh.config.labels.release_checks import CHECK_COMMAND, CHECK_URL
from mesh.health.checks import CheckFunction
from mesh.health.prober import CommandChecker
from mesh.health.state_machine import Verdict
from mesh.model.codes import Code
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.probe import ProbeKind
from mesh.model.problem import Problem, Severity
from mesh.model.release_checks import CheckUrl, ReleaseChecks
from mesh.model.service import Address, Endpoint
from mesh.platform.rollouts.check_targets import CheckTargets
from mesh.platform.rollouts.evidence_records import MAX_CHECK_REASON, CheckCounts
from mesh.platform.rollouts.release_evidence import ReleaseKey
from mesh.util.bulkhead import Bulkhead
from mesh.util.conditions import Conditions

CHECK_INTERVAL = 5.0
"""Seconds from one round to the next."""
CHECK_TIMEOUT = 10.0
"""Seconds that a check may take."""
_RESOLVE_TIMEOUT = 3.0
"""Seconds until a name is given up."""
_MOST_RELEASES = 20
"""Releases that are checked in one round."""

bulkhead = Bulkhead(DaemonPart.ROLLOUTS)

ResolveHost: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Returns the addresses of a host. Raises `OSError`."""


class _NotAskedError(Exception):
    """No request may be sent. The text says why."""


async def resolve_host(host: str, port: int) -> Sequence[Address]:
    """Return the addresses of a host by getaddrinfo(3). Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(where[0]) for *_, where in found))


@dataclass(frozen=True, slots=True)
class CheckedInstance:
    """An own instance of a new release, and what its labels say."""

    endpoint: Endpoint
    checks: ReleaseChecks


class ReleaseChecker:
    """Runs checks and adds up their results. The owner must run `run`."""

    def __init__(
        self,
        instances: Callable[[], Mapping[ReleaseKey, Sequence[CheckedInstance]]],
        web: Callable[[], Mapping[ProbeKind, CheckFunction]],
        commands: CommandChecker | None,
        targets: Callable[[], Awaitable[CheckTargets]],
        *,
        conditions: Conditions,
        resolve: ResolveHost = resolve_host,
    ) -> None:
        """`instances` returns the own instances of new releases that serve; empty while no rollout runs. `web` returns
        the checks over the network. `commands`: None without an engine. `targets` may raise `OSError`. `conditions` has
        the URLs that cannot be asked: these have no result.
        """
        self._instances = instances
        self._web = web
        self._commands = commands
        self._targets = targets
        self._conditions = conditions
        self._resolve = resolve
        self._refused: list[Problem] = []
        self._turn = 0
        self.results: dict[ReleaseKey, dict[str, CheckCounts]] = {}
        """By release and label, without prefix, since the release is checked."""

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await bulkhead.run("checks of releases", self.check)
            await asyncio.sleep(CHECK_INTERVAL)

    async def check(self) -> None:
        """Run one round; nothing if no rollout runs."""
        found = {key: instances for key, instances in self._instances().items() if instances}
        self.results = {key: self.results.get(key, {}) for key in found}
        self._turn += 1
        self._refused = []
        async with asyncio.TaskGroup() as tasks:
            for key, instances in list(found.items())[:_MOST_RELEASES]:
                checked = instances[self._turn % len(instances)]
                for label in (CHECK_COMMAND, CHECK_URL):
                    tasks.create_task(bulkhead.run(f"{label} of {key.owner}", self._check_one, key, label, checked))
        self._conditions.found(ProblemPart.RELEASE_CHECKS, sorted(self._refused, key=str))

    async def _check_one(self, key: ReleaseKey, label: str, checked: CheckedInstance) -> None:
        checks, verdict = checked.checks, None
        if label == CHECK_COMMAND and checks.command and self._commands is not None:
            verdict = await self._commands(checked.endpoint.id, checks.command_run(CHECK_TIMEOUT))
        elif label == CHECK_URL and checks.url is not None:
            verdict = await self._ask(checked.endpoint, checks.url)
        if verdict is None or key not in self.results:
            return  # the engine could not run it, or nobody wants to know any more
        counts = self.results[key].get(label, CheckCounts())
        reason = counts.reason if verdict.ok else verdict.reason[:MAX_CHECK_REASON]
        self.results[key][label] = CheckCounts(counts.runs + 1, counts.failed + (not verdict.ok), reason)

    async def _ask(self, endpoint: Endpoint, url: CheckUrl) -> Verdict | None:
        request = url.request(CHECK_TIMEOUT)
        if url.is_container:
            return await self._web()[request.kind](endpoint.address, endpoint.port_for(url.port), request)
        try:
            address = await self._allowed(url)
        except _NotAskedError as error:
            self._refused.append(_problem(endpoint, url, str(error)))
            return None
        return await self._web()[request.kind](address, url.port, request)

    async def _allowed(self, url: CheckUrl) -> Address:
        """Return the address to ask. Raises `_NotAskedError`: one that is forbidden spoils the whole name."""
        try:
            async with asyncio.timeout(_RESOLVE_TIMEOUT):
                addresses = await self._resolve(url.host, url.port)
                targets = await self._targets()
        except (OSError, UnicodeError, TimeoutError) as error:
            raise _NotAskedError(f"it has no address: {str(error)[:80] or 'no answer in time'}") from error
        for address in addresses:
            if (refusal := targets.refusal(address)) is not None:
                raise _NotAskedError(f"it is not asked: {refusal} ({address})")
        if not addresses:
            raise _NotAskedError("it has no address")
        return addresses[0]


def checked_commands(instances: Mapping[ReleaseKey, Collection[CheckedInstance]]) -> Mapping[str, str]:
    """Return the commands of checks by the ID of the endpoint, as own labels declare them."""
    return {
        each.endpoint.id: each.checks.command for found in instances.values() for each in found if each.checks.command
    }


def _problem(endpoint: Endpoint, url: CheckUrl, reason: str) -> Problem:
    shown = "".join(c if c.isprintable() else "?" for c in reason)
    remedy = "write container as the host, or add its network to [rollouts] check_networks; until then it has no result"
    subject = f"{endpoint.owner}, label {CHECK_URL}, host {url.host[:60]}"
    return Problem(Code.RELEASE_CHECK, Severity.WARNING, subject, shown, remedy, owner=endpoint.owner)
