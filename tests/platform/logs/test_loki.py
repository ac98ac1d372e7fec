"""Loki: labels, refused lines, back-off, the tenant."""

import json

import pytest

from mesh.config.labels.logs import LogLabels
from mesh.platform.logs.documents import LogOrigin, make_documents
from mesh.platform.logs.json_file import LogLine, LogPosition
from mesh.platform.logs.sinks import LogSinkError
from mesh.platform.logs.sinks.document_fields import take_apart
from mesh.platform.logs.sinks.halves import MAX_DIVISIONS
from mesh.platform.logs.sinks.http_client import LogStoreAccess
from mesh.platform.logs.sinks.loki import LokiSink
from mesh.platform.logs.sinks.loki_push import encode_push, stream_labels
from tests.platform.logs.loki_server import ANSWERS, LokiServer, LokiStoredLogs
from tests.platform.logs.recorded import validator
from tests.platform.logs.sinks import documents


def test_labels_are_few_and_the_rest_is_structured_metadata() -> None:
    push = json.loads(encode_push(documents("a"), 0))
    validator("loki_push.schema.json").validate(push)
    (stream,) = push["streams"]
    assert stream["stream"] == {
        "project": "shop",
        "service": "db",
        "store": "shop-db",
        "container": "shop-db-1",
        "worker": "w1",
        "stream": "stdout",
    }
    (line,) = stream["values"]
    assert line[:2] == ["1796039956358097495", "a"], "nanoseconds are kept"
    assert line[2] == {"container_id": "f" * 64, "image": "mysql", "id": documents("a")[0].id}


@pytest.mark.parametrize(
    ("container", "label"),
    [
        ("shop-db-1", "shop-db-1"),
        ("shop_web.1.4d1h2m5k8p0q3r6s9t2u5w8x1", "shop_web.1"),
        ("shop.web.abc", "shop.web.abc"),
    ],
)
def test_a_label_has_no_id_of_a_task(container: str, label: str) -> None:
    origin = LogOrigin("f" * 64, container, "shop/web", "w1")
    line = LogLine(LogPosition("0" * 16, 0), "a", "stdout", "2026-11-30T11:59:16.358097495Z")
    (document,) = make_documents([line], origin, LogLabels("app"), "2026-11-30T12:00:00Z")
    assert dict(stream_labels(take_apart(document, 0), document.store))["container"] == label
    push = json.loads(encode_push([document], 0))
    assert ("container" in push["streams"][0]["values"][0][2]) == (container != label), "the whole name is not lost"


def test_a_container_without_a_service_has_no_empty_label() -> None:
    origin = LogOrigin("f" * 64, "alone", "alone", "w1")
    line = LogLine(LogPosition("0" * 16, 0), "a", "unknown", None)
    (document,) = make_documents([line], origin, LogLabels("app"), "2026-11-30T12:00:00Z")
    labels = dict(stream_labels(take_apart(document, 0), document.store))
    assert "project" not in labels
    assert labels["service"] == "alone"


async def test_lines_that_are_too_old_are_refused_with_the_reason_and_the_others_kept(
    loki: tuple[LokiServer, str],
) -> None:
    server, url = loki
    logs = LokiStoredLogs(server, url)
    server.refuses = ["old"]
    refused = await logs.sink.deliver(documents("a", "old 1", "b", "c", "old 2", "d", "e"))
    assert sorted(json.loads(each.document.body)["message"] for each in refused) == ["old 1", "old 2"]
    assert all(each.reason.startswith("status 400: entry with timestamp") for each in refused)
    assert all("too far behind" in each.reason for each in refused)
    assert sorted(await logs.messages("db")) == ["a", "b", "c", "d", "e"]
    await logs.sink.close()


async def test_a_backlog_that_is_refused_as_a_whole_costs_few_requests(loki: tuple[LokiServer, str]) -> None:
    server, url = loki
    logs = LokiStoredLogs(server, url)
    server.refuses = ["old"]
    refused = await logs.sink.deliver(documents(*(f"old {n}" for n in range(1000))))
    assert len(refused) == 1000
    assert server.pushes <= 2 * MAX_DIVISIONS + 1
    assert "lines, this one or others: status 400" in refused[0].reason
    await logs.sink.close()


@pytest.mark.parametrize("name", ["rate", "no tenant", "starting", "no structured metadata"])
async def test_what_is_no_refusal_of_lines_is_delivered_again(loki: tuple[LokiServer, str], name: str) -> None:
    server, url = loki
    logs = LokiStoredLogs(server, url)
    server.next = [ANSWERS[name]]
    with pytest.raises(LogSinkError, match=";"):
        await logs.sink.deliver(documents("a"))
    assert not await logs.sink.deliver(documents("a"))
    assert await logs.messages("db") == ["a"]
    await logs.sink.close()


async def test_the_tenant_is_sent(loki: tuple[LokiServer, str]) -> None:
    server, url = loki
    sink = LokiSink(LogStoreAccess((url,)), "shop")
    await sink.deliver(documents("a"))
    assert server.tenants == ["shop"]
    await sink.close()


async def test_a_push_that_is_too_large_is_sent_in_parts(loki: tuple[LokiServer, str]) -> None:
    server, url = loki
    logs = LokiStoredLogs(server, url)
    server.limit = 2000
    (refused,) = await logs.sink.deliver(documents("a", "b", "x" * 3000, "c", "d", "e", "f"))
    assert "413" in refused.reason
    assert await logs.messages("db") == ["a", "b", "c", "d", "e", "f"]
    await logs.sink.close()
