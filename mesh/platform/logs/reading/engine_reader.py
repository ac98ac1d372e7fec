"""Asks the engine for the lines of a service, where `vipmesh ship` does not read the files.

Only containers with a label of the mesh are asked for: those of other programs, as a store, have none.
"""

import asyncio
from collections.abc import Sequence

import aiodocker

from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.platform.logs.reading.cursors import ID_LENGTH, MAX_INSTANCES, InstanceCursor, encode_cursor
from mesh.platform.logs.reading.document import ServiceLogLine, ServiceLogNote, WorkerLogDocument, merge_lines, note
from mesh.platform.logs.reading.query import MAX_LINES, LogQuery, is_meant
from mesh.platform.logs.targets import service_of
from mesh.sources.docker.client import CLIENT_ERRORS, explain_failure, open_client
from mesh.sources.docker.container_lines import parse_container_lines
from mesh.sources.docker.identity import LabelRules, counting_labels, unmet_constraints
from mesh.sources.docker.inspection import start_time
from mesh.sources.docker.instances import container_name, has_mesh_label
from mesh.sources.docker.label_origins import OriginReader
from mesh.sources.docker.log_files import list_all_containers, read_container_lines
from mesh.sources.docker.messages import ContainerSummary
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.ADMIN)

ANSWER_SECONDS = 2.5
"""Seconds in which the engine sends the lines of all instances."""
MAX_BYTES = 8 << 20
"""Bytes that the engine may send for an answer."""
SEARCHED_LINES = 5000
"""The newest lines of each instance that a pattern is looked for in."""
_AT_ONCE = 4
LIST_SECONDS = 5.0
"""Seconds for which a follower is told that this worker has no container of a service, without asking the engine."""
ROTATION_NOTE = (
    "lines come from the engine: what it rotates meanwhile may be missing; run `vipmesh ship` on this worker"
)


class EngineLogReader:
    """Reads lines by the API of an engine."""

    def __init__(self, url: str, rules: LabelRules, worker: str) -> None:
        """`worker` is the name of this worker."""
        self._url = url
        self._rules = rules
        self._worker = worker
        self._origins = OriginReader()
        self._listed: tuple[float, Sequence[ContainerSummary]] | None = None
        """When containers were listed, and those with labels of the mesh."""

    async def read(self, query: LogQuery) -> WorkerLogDocument:
        """Return the lines. An engine that does not answer is a note."""
        if query.after is not None and self._has_none(query.service):
            return WorkerLogDocument(self._worker, "engine")
        try:
            async with asyncio.timeout(ANSWER_SECONDS), open_client(self._url, ANSWER_SECONDS) as docker:
                return await self._read(docker, query)
        except CLIENT_ERRORS as error:
            text = f"engine {self._url}: {explain_failure(error, ANSWER_SECONDS)}"
            return WorkerLogDocument(self._worker, "none", notes=(note(text, Code.ENGINE_UNREACHABLE),))

    async def _read(self, docker: aiodocker.Docker, query: LogQuery) -> WorkerLogDocument:
        meant = await self._meant(docker, query.service)
        services = tuple(sorted({service for service, _ in meant}))
        if len(services) != 1:
            return WorkerLogDocument(self._worker, "engine", services)
        notes = [note(ROTATION_NOTE, Code.LOG_LINES_BY_ENGINE)]
        if len(meant) > MAX_INSTANCES:
            text = f"{len(meant) - MAX_INSTANCES} of {len(meant)} instances are left out; read them with the engine"
            notes.append(note(text, Code.LOG_LINES_LEFT_OUT))
            meant = meant[:MAX_INSTANCES]
        reads = _EngineReads(docker, query, self._worker, MAX_BYTES // max(1, len(meant)))
        room = asyncio.Semaphore(_AT_ONCE)

        async def take(service: str, container: ContainerSummary) -> None:
            async with room:
                await reads.take(service, container)

        async with asyncio.TaskGroup() as tasks:
            for service, container in meant:
                tasks.create_task(bulkhead.run("log of a container", take, service, container))
        lines, _ = merge_lines(reads.lines, query.lines if query.after is None else MAX_LINES)
        return WorkerLogDocument(
            self._worker, "engine", services, lines, encode_cursor(reads.cursor), reads.more, (*notes, *reads.notes)
        )

    def _has_none(self, asked: str) -> bool:
        """Return whether there was no container of a service a moment ago: who follows one asks again and again."""
        if self._listed is None or asyncio.get_running_loop().time() - self._listed[0] >= LIST_SECONDS:
            return False
        services = map(self._service, self._listed[1])
        return not any(service is not None and is_meant(asked, service) for service in services)

    async def _meant(self, docker: aiodocker.Docker, asked: str) -> Sequence[tuple[str, ContainerSummary]]:
        """Return the containers of a service, each with the service."""
        containers = [each for each in await list_all_containers(docker) if has_mesh_label(each.labels)]
        await self._origins.update(docker, containers)
        self._listed = asyncio.get_running_loop().time(), containers
        found = [(self._service(each), each) for each in containers]
        meant = [(service, each) for service, each in found if service is not None and is_meant(asked, service)]
        return sorted(meant, key=lambda each: (each[1].state != "running", container_name(each[1]), each[1].id))

    def _service(self, container: ContainerSummary) -> str | None:
        labels, origins = container.labels or {}, self._origins.of(container)
        if not counting_labels(labels, origins, self._rules) or unmet_constraints(labels, origins, self._rules):
            return None
        return service_of(container, origins)


class _EngineReads:
    """What is read for one answer."""

    def __init__(self, docker: aiodocker.Docker, query: LogQuery, worker: str, share: int) -> None:
        self._docker = docker
        self._query = query
        self._worker = worker
        self._share = share
        self.cursor: dict[str, InstanceCursor] = {}
        self.lines: list[ServiceLogLine] = []
        self.notes: list[ServiceLogNote] = []
        self.more = False

    async def take(self, service: str, container: ContainerSummary) -> None:
        """Read one instance."""
        query, id, name = self._query, container.id[:ID_LENGTH], container_name(container)
        known = None if query.after is None else query.after.get(id, InstanceCursor(None))
        since = int(query.since * 1e9) if known is None else known.time + 1 if known.time else 0
        tail = None
        if known is None:
            tail = SEARCHED_LINES if query.pattern else MAX_LINES if query.since else query.lines
        self.cursor[id] = InstanceCursor(None, 0 if known is None else known.time)
        try:
            read = await read_container_lines(self._docker, container.id, since=since, tail=tail, most=self._share)
        except CLIENT_ERRORS as error:
            text = f"container {name}: {explain_failure(error, ANSWER_SECONDS)}"
            self.notes.append(note(text, Code.ENGINE_UNREACHABLE))
            return
        if read is None:
            text = f"container {name}: its log driver keeps no lines that can be read"
            self.notes.append(note(text, Code.LOG_LINES_LEFT_OUT))
            return
        # The engine's own filter counts seconds in some versions.
        timed = [(start_time(line.time) or 0, line) for line in parse_container_lines(read.data)]
        new = [(at, line) for at, line in timed if at >= since]
        self.cursor[id] = InstanceCursor(None, max((at for at, _ in new), default=self.cursor[id].time))
        self.more = self.more or (not read.is_whole and bool(new))
        if not read.is_whole and known is None:
            text = f"container {name}: lines are left out: they have too many bytes; ask for less"
            self.notes.append(note(text, Code.LOG_LINES_LEFT_OUT))
        self.lines += (
            ServiceLogLine(line.text, name, self._worker, service, line.stream, line.time)
            for _, line in new
            if query.pattern in line.text
        )
