"""Follows an engine: which containers have logs to collect, as they come and go."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import aiodocker

from mesh.model.codes import Code
from mesh.model.errors import CodedText, MeshError
from mesh.model.part import ProblemPart, ShipPart
from mesh.model.problem import Problem
from mesh.platform.logs.targets import LogTarget, log_target, problems_in_order, wanted_logs
from mesh.sources.docker.client import CLIENT_ERRORS, EventStream, explain_failure, open_client
from mesh.sources.docker.identity import LabelRules
from mesh.sources.docker.instances import has_mesh_label
from mesh.sources.docker.label_origins import OriginReader
from mesh.sources.docker.log_files import (
    READABLE_DRIVER,
    ContainerLog,
    find_log,
    list_all_containers,
    open_container_events,
)
from mesh.util.backoff import Backoff
from mesh.util.conditions import Conditions

RELIST_INTERVAL = 30.0
"""Seconds after which containers are listed without an event."""


class ContainerLogs:
    """Lists the containers of an engine at each event, and reports the logs that are collected."""

    def __init__(
        self, url: str, rules: LabelRules, worker: str, on_targets: Callable[[Sequence[LogTarget]], None]
    ) -> None:
        """`on_targets` gets all logs each time; containers that it does not have any more are removed."""
        self._url = url
        self._rules = rules
        self._worker = worker
        self._on_targets = on_targets
        self._conditions = Conditions()
        self._origins = OriginReader()
        self._logs: dict[str, ContainerLog] = {}
        """Where the logs are of containers with labels about logs, by ID. A container keeps its driver and its file."""

    def waits(self) -> Mapping[str, CodedText]:
        """Return why there is no news of the engine; empty if it answers."""
        return self._conditions.frozen

    async def run(self) -> None:
        """Follow the engine until the task is cancelled; while it is away, the last list stays."""
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                async with open_client(self._url) as docker, open_container_events(docker) as events:
                    await self._follow(docker, events, backoff)
            except CLIENT_ERRORS as error:
                reason = MeshError(Code.ENGINE_UNREACHABLE, f"engine {self._url}: {explain_failure(error)}")
                self._conditions.froze(ShipPart.CONTAINERS, reason)
            await asyncio.sleep(backoff.next_pause())

    async def _follow(self, docker: aiodocker.Docker, events: EventStream, backoff: Backoff) -> None:
        while True:
            self._on_targets(await self._targets(docker))
            self._conditions.thawed(ShipPart.CONTAINERS)
            backoff.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(RELIST_INTERVAL):
                    await events.some()

    async def _targets(self, docker: aiodocker.Docker) -> Sequence[LogTarget]:
        containers = [each for each in await list_all_containers(docker) if has_mesh_label(each.labels)]
        await self._origins.update(docker, containers)
        targets: list[LogTarget] = []
        problems: list[Problem] = []
        known = self._logs
        self._logs = {}
        for container in containers:
            labels, found = wanted_logs(container, self._origins.of(container), self._rules)
            problems += found
            if labels is None:
                continue
            log = known.get(container.id) or await find_log(docker, container.id)
            if log is None:
                continue
            target = log_target(container, labels, log, self._origins.of(container), self._worker)
            if log.path or log.driver != READABLE_DRIVER:
                self._logs[container.id] = log
            targets.append(target)
            problems += target.problems
        self._conditions.found(ProblemPart.LABELS, problems_in_order(problems))
        return targets
