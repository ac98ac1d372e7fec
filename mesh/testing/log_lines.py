"""Log lines without files and engines."""

from dataclasses import replace

from typing_extensions import override

from mesh.platform.logs.json_file import LogPosition
from mesh.platform.logs.reading.cursors import InstanceCursor, encode_cursor
from mesh.platform.logs.reading.document import ServiceLogLine, WorkerLogDocument, merge_lines
from mesh.platform.logs.reading.query import MAX_LINES, LogQuery, is_meant
from mesh.platform.logs.reading.worker_reader import ServiceLogSource


class FakeServiceLogs(ServiceLogSource):
    """Answers with the lines that it was given, in this order for each container."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.lines: list[ServiceLogLine] = []
        self.answer = WorkerLogDocument(worker, "ship")
        """What an answer has besides."""
        self.asked: list[LogQuery] = []

    def write(self, text: str, container: str = "web1", service: str = "shop/web", second: int = 0) -> None:
        """Add a line that an instance has written at a second of an hour."""
        time = f"2026-11-30T12:{second // 60:02d}:{second % 60:02d}.000000001Z"
        self.lines.append(ServiceLogLine(text, container, self.worker, service, "stdout", time))

    @override
    async def read(self, query: LogQuery) -> WorkerLogDocument:
        self.asked.append(query)
        services = tuple(sorted({each.service for each in self.lines if is_meant(query.service, each.service)}))
        if len(services) != 1:
            return replace(self.answer, services=services)
        lines: list[ServiceLogLine] = []
        cursor = {}
        for container in dict.fromkeys(each.container for each in self.lines if each.service == services[0]):
            own = [each for each in self.lines if (each.service, each.container) == (services[0], container)]
            known = (query.after or {}).get(container)
            begin = known.position.offset if known is not None and known.position is not None else 0
            lines += (each for each in own[begin:] if query.pattern in each.text)
            cursor[container] = InstanceCursor(LogPosition("0" * 16, len(own)))
        kept, _ = merge_lines(lines, MAX_LINES if query.after is not None else query.lines)
        return replace(self.answer, services=services, lines=kept, cursor=encode_cursor(cursor))
