"""One contract for the fake, for files and for Elasticsearch, Loki and OTLP, which strict HTTP servers stand for."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from typing_extensions import override

from mesh.platform.logs.sinks import LogSinkError
from mesh.platform.logs.sinks.credentials import LogStoreCredentials
from mesh.platform.logs.sinks.elasticsearch import ElasticsearchSink
from mesh.platform.logs.sinks.http_client import LogStoreAccess
from mesh.platform.logs.sinks.json_lines import JsonLinesSink
from mesh.testing.log_sink import MemoryLogSink
from tests.platform.logs.bulk_server import BulkServer
from tests.platform.logs.loki_server import LokiServer, LokiStoredLogs
from tests.platform.logs.otlp_server import OtlpServer, OtlpStoredLogs
from tests.platform.logs.sinks import StoredLogs, documents


class MemoryStoredLogs(StoredLogs):
    def __init__(self) -> None:
        self.memory = MemoryLogSink()
        super().__init__(self.memory)

    @override
    async def messages(self, store: str) -> list[str]:
        stored = self.memory.stored.values()
        return [json.loads(each.body)["message"] for each in stored if each.store == f"shop-{store}"]

    @override
    async def fail_once(self) -> None:
        self.memory.failures = 1


class FileStoredLogs(StoredLogs):
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(JsonLinesSink(directory))

    @override
    async def messages(self, store: str) -> list[str]:
        file = self.directory / f"shop-{store}.jsonl"
        return [json.loads(line)["message"] for line in file.read_bytes().splitlines()] if file.exists() else []

    @override
    async def fail_once(self) -> None:
        """A process that stopped within a write and another one that goes on are a failure between two deliveries."""
        await self.sink.deliver(documents("a"))
        file = self.directory / "shop-db.jsonl"
        file.write_bytes(file.read_bytes() + b'{"id":"half of a line')
        self.sink = JsonLinesSink(self.directory)
        raise LogSinkError("the process ended", "start it")


class ElasticsearchStoredLogs(StoredLogs):
    def __init__(self, server: BulkServer, url: str) -> None:
        self.server = server
        super().__init__(ElasticsearchSink(LogStoreAccess((url,)), "vipmesh"))

    @override
    async def messages(self, store: str) -> list[str]:
        return [each["message"] for each in self.server.indices.get(f"vipmesh-shop-{store}", {}).values()]

    @override
    async def fail_once(self) -> None:
        self.server.full = 1


@pytest.fixture(params=["memory", "files", "elasticsearch", "loki", "otlp"])
async def stored(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    bulk: tuple[BulkServer, str],
    loki: tuple[LokiServer, str],
    otlp: tuple[OtlpServer, str],
) -> AsyncIterator[StoredLogs]:
    makers: dict[str, Callable[[], StoredLogs]] = {
        "memory": MemoryStoredLogs,
        "files": lambda: FileStoredLogs(tmp_path / "out"),
        "elasticsearch": lambda: ElasticsearchStoredLogs(*bulk),
        "loki": lambda: LokiStoredLogs(*loki),
        "otlp": lambda: OtlpStoredLogs(*otlp),
    }
    logs = makers[request.param]()
    yield logs
    await logs.sink.close()


async def failed(delivery: Awaitable[object]) -> None:
    with pytest.raises(LogSinkError, match=";"):
        await delivery


async def test_documents_are_stored_in_order_each_in_its_store(stored: StoredLogs) -> None:
    assert not await stored.sink.deliver([*documents("a", "b"), *documents("x", first=9, store="web")])
    await stored.sink.deliver(documents("c", first=2))
    assert await stored.messages("db") == ["a", "b", "c"]
    assert await stored.messages("web") == ["x"]


async def test_a_repeat_is_harmless(stored: StoredLogs) -> None:
    for _ in range(3):
        assert not await stored.sink.deliver(documents("a", "b"))
    assert await stored.messages("db") == ["a", "b"]


async def test_after_a_failure_the_same_delivery_stores_each_document_once(stored: StoredLogs) -> None:
    try:
        await stored.fail_once()
        await failed(stored.sink.deliver(documents("a", "b", "c", "d")))
    except LogSinkError:
        pass  # the failure lies between two deliveries
    assert not await stored.sink.deliver(documents("a", "b", "c", "d"))
    assert await stored.messages("db") == ["a", "b", "c", "d"]


async def test_nothing_to_deliver_is_no_request(stored: StoredLogs) -> None:
    assert not await stored.sink.deliver(())


async def test_hostile_text_arrives_as_it_is(stored: StoredLogs) -> None:
    text = '"\\\n\r\x00\u2028\x7f{"create":{}}\n'
    assert not await stored.sink.deliver(documents(text))
    assert await stored.messages("db") == [text]


async def test_elasticsearch_refuses_single_documents_for_good(bulk: tuple[BulkServer, str]) -> None:
    server, url = bulk
    logs = ElasticsearchStoredLogs(server, url)
    server.refuses = "bad"
    (refused,) = await logs.sink.deliver(documents("a", "bad", "c"))
    assert json.loads(refused.document.body)["message"] == "bad"
    assert refused.reason == "status 400: document_parsing_exception: failed to parse field"
    assert await logs.messages("db") == ["a", "c"]
    await logs.sink.close()


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 429, 500, 503])
async def test_elasticsearch_that_refuses_a_request_gets_it_again_later(
    bulk: tuple[BulkServer, str], status: int
) -> None:
    server, url = bulk
    logs = ElasticsearchStoredLogs(server, url)
    server.statuses = [status]
    with pytest.raises(LogSinkError, match=f"status {status}"):
        await logs.sink.deliver(documents("a"))
    assert not await logs.sink.deliver(documents("a"))
    assert await logs.messages("db") == ["a"]
    await logs.sink.close()


async def test_the_next_endpoint_is_asked_when_one_is_away(bulk: tuple[BulkServer, str]) -> None:
    server, url = bulk
    sink = ElasticsearchSink(
        LogStoreAccess(
            (
                "http://127.0.0.1:1",
                url,
            )
        ),
        "vipmesh",
    )
    assert not await sink.deliver(documents("a"))
    assert server.indices["vipmesh-shop-db"].keys() == {documents("a")[0].id}
    await sink.close()


async def test_a_request_that_is_too_large_is_sent_in_parts(bulk: tuple[BulkServer, str]) -> None:
    server, url = bulk
    logs = ElasticsearchStoredLogs(server, url)
    server.limit = 2000
    (refused,) = await logs.sink.deliver(documents("a", "b", "x" * 3000, "c", "d", "e", "f"))
    assert "413" in refused.reason
    assert await logs.messages("db") == ["a", "b", "c", "d", "e", "f"]
    await logs.sink.close()


async def test_credentials_are_read_from_files_before_each_request(
    bulk: tuple[BulkServer, str], tmp_path: Path
) -> None:
    server, url = bulk
    file = tmp_path / "password"
    file.write_text("secret\n")
    sink = ElasticsearchSink(LogStoreAccess((url,), LogStoreCredentials(user="elastic", password_file=file)), "vipmesh")
    await sink.deliver(documents("a"))
    file.unlink()
    with pytest.raises(LogSinkError, match="password cannot be read"):
        await sink.deliver(documents("a"))
    assert server.authorization == ["Basic ZWxhc3RpYzpzZWNyZXQ="]
    await sink.close()


async def test_an_answer_of_another_program_is_no_success(bulk: tuple[BulkServer, str]) -> None:
    server, url = bulk
    server.statuses = [200]
    sink = ElasticsearchSink(LogStoreAccess((url,)), "vipmesh")
    with pytest.raises(LogSinkError, match="not one of Elasticsearch"):
        await sink.deliver(documents("a"))
    await sink.close()
