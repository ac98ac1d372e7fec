"""Stands for what takes logs by OTLP/HTTP: checks requests against the schema, and answers as recorded."""

import json
from typing import Any

from aiohttp import web
from typing_extensions import override

from mesh.platform.logs.sinks.http_client import LogStoreAccess
from mesh.platform.logs.sinks.otlp import OtlpSink
from tests.platform.logs.loki_server import answered
from tests.platform.logs.recorded import answers, validator
from tests.platform.logs.sinks import StoredLogs

ANSWERS = answers("otlp_answers.json")
_LOGS = validator("otlp_logs.schema.json")


class OtlpServer:
    """Keeps records by `log.record.uid`, as a store does that removes what is sent twice."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        """The attributes of the resource and the record."""
        self.next: list[dict[str, Any]] = []
        """The next answers, in place of success; nothing is stored with a status other than 200."""
        self.half = 0
        """So many of the next requests end after half of their records."""
        self.limit = 1 << 24
        self.requests = 0

    async def export(self, request: web.Request) -> web.Response:
        """The handler of `POST /v1/logs`."""
        assert request.method == "POST"
        assert request.content_type == "application/json"
        self.requests += 1
        body = await request.read()
        if len(body) > self.limit:
            return web.Response(status=413)
        document = json.loads(body)
        _LOGS.validate(document)
        answer = self.next.pop(0) if self.next else ANSWERS["success"]
        if answer["status"] != 200:
            return answered(answer)
        for each in document["resourceLogs"]:
            resource = attributes(each["resource"]["attributes"])
            for scope in each["scopeLogs"]:
                records = scope["logRecords"]
                for record in records[: len(records) // 2] if self.half else records:
                    uid = attributes(record["attributes"])["log.record.uid"]
                    self.records.setdefault(str(uid), (resource, record))
        if self.half:
            self.half -= 1
            return answered(ANSWERS["unavailable"])
        return answered(answer)


class OtlpStoredLogs(StoredLogs):
    """OTLP under the contract of all stores."""

    def __init__(self, server: OtlpServer, url: str) -> None:
        self.server = server
        self.rejected: list[tuple[int, str]] = []
        super().__init__(OtlpSink(LogStoreAccess((url,)), lambda count, reason: self.rejected.append((count, reason))))

    @override
    async def messages(self, store: str) -> list[str]:
        records = self.server.records.values()
        return [
            record["body"]["stringValue"]
            for resource, record in records
            if resource["vipmesh.store"] == f"shop-{store}"
        ]

    @override
    async def fail_once(self) -> None:
        self.server.half = 1


def attributes(found: list[dict[str, Any]]) -> dict[str, object]:
    """A list of keys and values as a mapping; arrays as lists."""
    return {each["key"]: _value(each["value"]) for each in found}


def _value(value: dict[str, Any]) -> object:
    if "arrayValue" in value:
        return [_value(each) for each in value["arrayValue"]["values"]]
    return next(iter(value.values()))
