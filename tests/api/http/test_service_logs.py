"""`GET /v1/logs/SERVICE`: one answer, answers of other workers over the channel, and the stream."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from typing_extensions import override

from mesh.api.channel.worker_channel import DEADLINE, MAX_ANSWER_BYTES, ChannelReply
from mesh.api.http import log_stream, service_logs
from mesh.api.http.past_events import PastEventsHandler
from mesh.api.http.server import AdminApi
from mesh.model.table import RealKey
from mesh.platform.logs.reading.query import LogQuery, parse_log_query
from mesh.testing.channel import FakeDirectory, FakeWorkerChannel
from mesh.testing.log_lines import FakeServiceLogs
from tests.api.http.worker import client, serving, socket_of, until


class TwoWorkers:
    """This worker, and another one behind the channel."""

    def __init__(self) -> None:
        self.own = FakeServiceLogs("w1")
        self.other = FakeServiceLogs("w2")
        self.channel = AnsweringChannel(self.other)

    def serving(self, directory: Path) -> AbstractAsyncContextManager[AdminApi]:
        """The admin API of this worker."""
        past = PastEventsHandler(lambda: "w1")
        return serving(socket_of(directory), past=past, channel=self.channel, logs=self.own)


class AnsweringChannel(FakeWorkerChannel):
    """Answers as the other worker does."""

    def __init__(self, other: FakeServiceLogs) -> None:
        super().__init__(FakeDirectory({"w2": RealKey("192.0.2.2", 9780)}))
        self._other = other

    @override
    async def ask(
        self,
        worker: str,
        path: str,
        *,
        accept: str = "application/json",
        deadline: float = DEADLINE,
        most: int = MAX_ANSWER_BYTES,
    ) -> ChannelReply:
        if worker in self.hung:
            return await super().ask(worker, path)
        url = urlsplit(path)
        query = parse_log_query(
            unquote(url.path.removeprefix("/v1/logs/")), dict(parse_qsl(url.query, keep_blank_values=True)), 0.0
        )
        return ChannelReply(msgspec.json.encode(await self._other.read(query)))


@pytest.fixture
def workers() -> TwoWorkers:
    found = TwoWorkers()
    found.own.write("a", second=1)
    found.other.write("b", second=2)
    found.own.write("c", second=3)
    return found


async def test_lines_of_this_worker_and_of_all(workers: TwoWorkers, tmp_path: Path) -> None:
    async with workers.serving(tmp_path), client(tmp_path) as session:
        async with session.get("/v1/logs/shop/web") as answer:
            document = await answer.json()
            assert [line["text"] for line in document["lines"]] == ["a", "c"]
        async with session.get("/v1/logs/web?workers=all&lines=2&grep=") as answer:
            document = await answer.json()
            assert [(line["text"], line["worker"]) for line in document["lines"]] == [("b", "w2"), ("c", "w1")]
            assert (document["dropped"], document["worker"]) == (1, "w1")
        async with session.get("/v1/logs/web?workers=w2") as answer:
            assert [line["text"] for line in (await answer.json())["lines"]] == ["b"]
        workers.channel.hung.add("w2")
        async with session.get("/v1/logs/web?workers=all") as answer:
            document = await answer.json()
            assert [line["text"] for line in document["lines"]] == ["a", "c"]
            (silent,) = [each for each in document["workers"] if each["error"] is not None]
            assert (silent["worker"], silent["code"]) == ("w2", "VM676")


async def test_a_routing_name_means_its_service(tmp_path: Path) -> None:
    logs = FakeServiceLogs("w1")
    async with serving(socket_of(tmp_path), logs=logs), client(tmp_path) as session:
        await (await session.get("/v1/logs/A.TEST.")).read()
    assert logs.asked == [LogQuery("demo/a")]


async def test_a_name_of_two_services_is_refused_also_if_they_are_on_two_workers(
    workers: TwoWorkers, tmp_path: Path
) -> None:
    workers.other.lines.clear()
    workers.other.write("x", service="other/web")
    async with workers.serving(tmp_path), client(tmp_path) as session:
        for more in ("", "&follow=true"):
            async with session.get(f"/v1/logs/web?workers=all{more}") as answer:
                assert (answer.status, answer.headers["Vipmesh-Code"]) == (400, "VM974")
                assert "other/web, shop/web" in (await answer.json())["error"]


async def test_a_stream_goes_on_with_new_lines_of_all_workers_each_once(workers: TwoWorkers, tmp_path: Path) -> None:
    async with (
        workers.serving(tmp_path),
        client(tmp_path) as session,
        session.get("/v1/logs/web?workers=all&follow=true&lines=2") as answer,
    ):
        assert answer.content_type == "text/event-stream"
        seen = [data["text"] for name, data in await lines(answer, 2)]
        assert seen == ["b", "c"]
        workers.other.write("d", second=4)
        workers.own.write("e", second=5)
        workers.own.write("of another", container="db1", service="shop/db", second=6)
        assert sorted([data["text"] for _, data in await lines(answer, 2)]) == ["d", "e"]
        workers.channel.hung.add("w2")
        (_, silent) = (await until(answer, "worker"))[-1]
        assert (silent["worker"], silent["code"]) == ("w2", "VM676")
        workers.other.write("f", second=7)
        workers.channel.hung.clear()
        (_, back) = (await until(answer, "worker"))[-1]
        assert (back["worker"], back["error"]) == ("w2", None)
        assert [data["text"] for _, data in await lines(answer, 1)] == ["f"]


async def lines(answer: object, count: int) -> list[tuple[str, dict[str, str]]]:
    """The next lines of a stream."""
    found: list[tuple[str, dict[str, str]]] = []
    while len(found) < count:
        found += [each for each in await until(answer, "line") if each[0] == "line"]  # type: ignore[arg-type]
    return found


async def test_there_are_only_so_many_streams_and_the_end_of_the_daemon_ends_them(
    workers: TwoWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_logs, "MAX_FOLLOWERS", 1)
    async with client(tmp_path) as session, asyncio.timeout(30):
        async with serving(socket_of(tmp_path), logs=workers.own):
            answer = await session.get("/v1/logs/web?follow=true")
            await lines(answer, 2)
            async with session.get("/v1/logs/web?follow=true") as refused:
                assert refused.status == 503
        assert b"event: bye" not in await answer.content.read()


async def test_a_watcher_that_reads_nothing_is_disconnected_and_asks_nothing_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_stream, "WRITE_TIMEOUT", 0.5)
    logs = FakeServiceLogs("w1")
    for number in range(200):
        logs.write("x" * 60_000, second=number)
    async with serving(socket_of(tmp_path), logs=logs), asyncio.timeout(30):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock", limit=1024)
        try:
            writer.write(b"GET /v1/logs/web?follow=true&lines=200 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while "VM655" not in " ".join(str(getattr(record, "code", "")) for record in caplog.records):
                assert len(logs.asked) <= 1, "nothing is read ahead"
                await asyncio.sleep(0.05)
            assert not reader.at_eof(), "nobody has read"
        finally:
            writer.close()


async def test_a_peer_that_sends_nonsense_is_named(workers: TwoWorkers, tmp_path: Path) -> None:
    plain = FakeWorkerChannel(FakeDirectory({"w2": RealKey("192.0.2.2", 9780)}))
    path = "/v1/logs/web?lines=100&since=0.000"
    async with serving(socket_of(tmp_path), channel=plain, logs=workers.own), client(tmp_path) as session:
        for body, reason in ((b"[]", "cannot be read"), (None, "update it")):
            plain.answers.clear()
            if body is not None:
                plain.answers["w2", path] = ChannelReply(body)
            async with session.get("/v1/logs/web?workers=all") as answer:
                document = json.loads(await answer.text())
                assert reason in document["workers"][1]["error"]
                assert plain.asked[-1] == ("w2", path)
