"""Stands for Loki: checks pushes against the schema, takes what it can, and answers as recorded."""

import json
from typing import Any

from aiohttp import web
from typing_extensions import override

from mesh.platform.logs.sinks.http_client import LogStoreAccess
from mesh.platform.logs.sinks.loki import LokiSink
from tests.platform.logs.recorded import answers, validator
from tests.platform.logs.sinks import StoredLogs

ANSWERS = answers("loki_answers.json")
_PUSH = validator("loki_push.schema.json")


class LokiServer:
    """Keeps lines by stream; a line with the same time and text as one before is one line."""

    def __init__(self) -> None:
        self.streams: dict[tuple[tuple[str, str], ...], dict[tuple[str, str], dict[str, str]]] = {}
        """Structured metadata by time and text, by labels."""
        self.next: list[dict[str, Any]] = []
        """The next answers, in place of what would be said; nothing is stored then."""
        self.half = 0
        """So many of the next pushes end after half of their lines: an ingester has gone."""
        self.refuses: list[str] = []
        """Lines with one of these texts are too old."""
        self.limit = 1 << 24
        self.pushes = 0
        self.tenants: list[str | None] = []

    async def push(self, request: web.Request) -> web.Response:
        """The handler of `POST /loki/api/v1/push`."""
        assert request.method == "POST"
        assert request.content_type == "application/json"
        self.pushes += 1
        self.tenants.append(request.headers.get("X-Scope-OrgID"))
        if self.next:
            return answered(self.next.pop(0))
        body = await request.read()
        if len(body) > self.limit:
            return web.Response(status=413, text="request entity too large")
        document = json.loads(body)
        _PUSH.validate(document)
        ignored = count = 0
        for stream in document["streams"]:
            entries = stream["values"][: len(stream["values"]) // 2] if self.half else stream["values"]
            kept = self.streams.setdefault(tuple(stream["stream"].items()), {})
            for time, line, metadata in entries:
                count += 1
                if any(text in line for text in self.refuses):
                    ignored += 1
                else:
                    kept.setdefault((time, line), metadata)
        if self.half:
            self.half -= 1
            return answered(ANSWERS["starting"])
        if ignored:
            told = ANSWERS["too far behind"]
            text = told["body"] % ("2026-11-01", "2026-11-01T00:00:00Z", "2026-11-30T11:00:00Z", ignored, count, "{}")
            return web.Response(status=told["status"], text=text)
        return web.Response(status=204)

    def lines(self, **labels: str) -> list[str]:
        """The texts of the streams that have these labels."""
        wanted = set(labels.items())
        return [text for stream, kept in self.streams.items() if wanted <= set(stream) for _, text in kept]


class LokiStoredLogs(StoredLogs):
    """Loki under the contract of all stores."""

    def __init__(self, server: LokiServer, url: str) -> None:
        self.server = server
        super().__init__(LokiSink(LogStoreAccess((url,))))

    @override
    async def messages(self, store: str) -> list[str]:
        return self.server.lines(store=f"shop-{store}")

    @override
    async def fail_once(self) -> None:
        self.server.half = 1


def answered(answer: dict[str, Any]) -> web.Response:
    """A recorded answer as a response."""
    body = answer["body"]
    text = body if isinstance(body, str) else json.dumps(body)
    kind = "text/plain" if isinstance(body, str) else "application/json"
    return web.Response(status=answer["status"], text=text, content_type=kind, headers=answer.get("headers"))
