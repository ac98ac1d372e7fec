"""OTLP/HTTP: attributes by the semantic conventions, partial success, refusals, back-off."""

import json

import pytest

from mesh.config.labels.logs import LogLabels
from mesh.platform.logs.documents import LogOrigin, make_documents
from mesh.platform.logs.json_file import LogLine, LogPosition
from mesh.platform.logs.sinks import LogSinkError
from mesh.platform.logs.sinks.otlp_logs import (
    MisunderstoodExportError,
    encode_export,
    judge_export,
    refusal_message,
    split_image,
)
from tests.platform.logs.otlp_server import ANSWERS, OtlpServer, OtlpStoredLogs, attributes
from tests.platform.logs.recorded import validator
from tests.platform.logs.sinks import documents


def test_attributes_have_the_names_of_the_semantic_conventions() -> None:
    origin = LogOrigin("f" * 64, "shop-web-1", "shop/web", "w1", "registry:5000/web:1.2", "v2")
    line = LogLine(LogPosition("0" * 16, 7), "hello", "stderr", "2026-11-30T11:59:16.358097495Z")
    body = encode_export(make_documents([line], origin, LogLabels("app", 7), ""), 1_796_040_000_000_000_000)
    document = json.loads(body)
    validator("otlp_logs.schema.json").validate(document)
    (resource,) = document["resourceLogs"]
    assert attributes(resource["resource"]["attributes"]) == {
        "service.name": "web",
        "service.namespace": "shop",
        "service.version": "v2",
        "container.id": "f" * 64,
        "container.name": "shop-web-1",
        "container.image.name": "registry:5000/web",
        "container.image.tags": ["1.2"],
        "host.name": "w1",
        "vipmesh.store": "shop-app",
    }
    (record,) = resource["scopeLogs"][0]["logRecords"]
    assert record["timeUnixNano"] == "1796039956358097495"
    assert record["observedTimeUnixNano"] == "1796040000000000000"
    assert record["body"] == {"stringValue": "hello"}
    assert attributes(record["attributes"]) == {
        "log.record.uid": f"{'f' * 16}-{'0' * 16}-7",
        "log.iostream": "stderr",
        "vipmesh.ttl_days": "7",
    }


@pytest.mark.parametrize(
    ("image", "name", "tag"),
    [
        ("mysql", "mysql", ""),
        ("mysql:8", "mysql", "8"),
        ("registry:5000/web", "registry:5000/web", ""),
        ("registry:5000/web:1", "registry:5000/web", "1"),
        ("web:1@sha256:abc", "web", "1"),
        ("", "", ""),
    ],
)
def test_an_image_has_a_name_and_a_tag(image: str, name: str, tag: str) -> None:
    assert split_image(image) == (name, tag)


async def test_a_part_that_is_rejected_is_counted_and_not_sent_again(otlp: tuple[OtlpServer, str]) -> None:
    server, url = otlp
    logs = OtlpStoredLogs(server, url)
    server.next = [ANSWERS["partial"]]
    assert not await logs.sink.deliver(documents("a", "b"))
    assert logs.rejected == [(1, "rejected: attribute limits exceeded")]
    assert server.requests == 1
    await logs.sink.close()


async def test_documents_of_a_request_that_is_rejected_as_a_whole_are_refused(otlp: tuple[OtlpServer, str]) -> None:
    server, url = otlp
    logs = OtlpStoredLogs(server, url)
    server.next = [ANSWERS["all rejected"]]
    refused = await logs.sink.deliver(documents("a", "b"))
    assert [each.reason for each in refused] == ["rejected: the tenant is read-only"] * 2
    assert logs.rejected == []
    await logs.sink.close()


async def test_a_warning_is_no_rejection(otlp: tuple[OtlpServer, str]) -> None:
    server, url = otlp
    logs = OtlpStoredLogs(server, url)
    server.next = [ANSWERS["warning"]]
    assert not await logs.sink.deliver(documents("a"))
    assert logs.rejected == []
    await logs.sink.close()


async def test_bad_data_is_refused_and_not_sent_again(otlp: tuple[OtlpServer, str]) -> None:
    server, url = otlp
    logs = OtlpStoredLogs(server, url)
    server.next = [ANSWERS["bad data"]]
    refused = await logs.sink.deliver(documents("a", "b"))
    assert [each.reason for each in refused] == ["status 400: invalid body"] * 2
    assert server.requests == 1
    await logs.sink.close()


@pytest.mark.parametrize(("name", "pause"), [("throttled", 7.0), ("unavailable", 0.0)])
async def test_what_is_throttled_is_delivered_again_when_the_store_says(
    otlp: tuple[OtlpServer, str], name: str, pause: float
) -> None:
    server, url = otlp
    logs = OtlpStoredLogs(server, url)
    server.next = [ANSWERS[name]]
    with pytest.raises(LogSinkError) as caught:
        await logs.sink.deliver(documents("a"))
    assert caught.value.pause == pause
    assert not await logs.sink.deliver(documents("a"))
    assert await logs.messages("db") == ["a"]
    await logs.sink.close()


async def test_a_request_that_is_too_large_is_sent_in_parts(otlp: tuple[OtlpServer, str]) -> None:
    server, url = otlp
    logs = OtlpStoredLogs(server, url)
    server.limit = 3000
    (refused,) = await logs.sink.deliver(documents("a", "b", "x" * 3000, "c", "d", "e", "f"))
    assert "413" in refused.reason
    assert await logs.messages("db") == ["a", "b", "c", "d", "e", "f"]
    await logs.sink.close()


async def test_an_answer_of_another_program_is_no_success(otlp: tuple[OtlpServer, str]) -> None:
    server, url = otlp
    logs = OtlpStoredLogs(server, url)
    server.next = [{"status": 200, "body": "<html>"}]
    with pytest.raises(LogSinkError, match=r"not one of OTLP.*check \[ship\] otlp"):
        await logs.sink.deliver(documents("a"))
    await logs.sink.close()


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"partialSuccess":{"rejectedLogRecords":"many"}}', b"\xff"])
def test_a_misunderstood_answer_is_told(body: bytes) -> None:
    with pytest.raises(MisunderstoodExportError):
        judge_export(body, 3)


@pytest.mark.parametrize(
    ("body", "rejected"),
    [
        (b"", 0),
        (b"{}", 0),
        (b'{"partialSuccess":null}', 0),
        (b'{"partialSuccess":{"rejectedLogRecords":2}}', 2),
        (b'{"partialSuccess":{"rejectedLogRecords":"-1"}}', 0),
        (b'{"partialSuccess":{"rejectedLogRecords":"99"}}', 3),
    ],
)
def test_the_number_of_rejected_records_is_within_the_request(body: bytes, rejected: int) -> None:
    assert judge_export(body, 3).rejected == rejected


def test_a_refusal_without_a_status_is_shown_as_it_is() -> None:
    assert refusal_message(b"no\xff") == "no�"
    assert refusal_message(b'{"code":3,"message":"bad"}') == "bad"
