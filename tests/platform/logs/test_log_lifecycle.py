"""Templates and policies by which Elasticsearch and OpenSearch delete documents after their time to live."""

import json

import pytest

from mesh.config.labels.logs import LogLabels
from mesh.config.settings import LogLifecycle
from mesh.model.codes import Code
from mesh.platform.logs.documents import LogDocument, make_documents
from mesh.platform.logs.json_file import LogLine, LogPosition
from mesh.platform.logs.sinks import LogSinkError
from mesh.platform.logs.sinks.elasticsearch import ElasticsearchSink
from mesh.platform.logs.sinks.http_client import LogStoreAccess
from mesh.platform.logs.sinks.log_lifecycle import place_of, store_objects
from tests.platform.logs.bulk_server import BulkServer
from tests.platform.logs.sinks import ORIGIN, documents

NOW = 1_796_083_200_000_000_000
"""2026-12-01T00:00:00Z."""


def living(ttl_days: int, time: str = "2026-11-30T11:59:16.358097495Z") -> LogDocument:
    line = LogLine(LogPosition("0" * 16, 0), "a", "stdout", time)
    (document,) = make_documents([line], ORIGIN, LogLabels("db", ttl_days), "2026-11-30T12:00:00Z")
    return document


@pytest.mark.parametrize(
    ("time", "date"),
    [
        ("2026-11-30T23:59:59.999999999Z", "2026.11.30"),
        ("2026-12-01T01:00:00+02:00", "2026.11.30"),
        ("2026-12-24T00:00:00Z", "2026.12.02"),
        ("1999-01-01T00:00:00Z", "2025.10.27"),
    ],
)
def test_an_index_has_the_day_of_its_lines_within_bounds(time: str, date: str) -> None:
    assert place_of(living(7, time), "vipmesh", NOW).index == f"vipmesh-shop-db.7d-{date}"


def test_documents_without_a_time_to_live_stay_where_they_are() -> None:
    place = place_of(documents("a")[0], "vipmesh", NOW)
    assert (place.index, place.ttl_days) == ("vipmesh-shop-db", None)


def test_the_policy_of_elasticsearch_deletes_after_the_whole_time() -> None:
    policy, template = store_objects(LogLifecycle.ILM, "vipmesh", 7)
    assert policy.path == "/_ilm/policy/vipmesh-7d"
    assert json.loads(policy.body)["policy"]["phases"]["delete"] == {"min_age": "8d", "actions": {"delete": {}}}
    assert template.path == "/_index_template/vipmesh-7d"
    found = json.loads(template.body)
    assert found["index_patterns"] == ["vipmesh-*.7d-*"]
    assert found["template"]["settings"]["index.lifecycle.name"] == "vipmesh-7d"
    assert found["template"]["mappings"]["properties"]["@timestamp"] == {"type": "date_nanos"}


def test_the_policy_of_opensearch_names_its_indices_itself() -> None:
    policy, template = store_objects(LogLifecycle.ISM, "vipmesh", 7)
    assert policy.path == "/_plugins/_ism/policies/vipmesh-7d"
    found = json.loads(policy.body)["policy"]
    assert found["ism_template"][0]["index_patterns"] == ["vipmesh-*.7d-*"]
    assert found["states"][0]["transitions"][0]["conditions"] == {"min_index_age": "8d"}
    assert json.loads(template.body)["template"]["settings"] == {}


def test_no_two_templates_that_one_name_could_match_have_the_same_priority() -> None:
    found = [
        json.loads(each.body)["priority"]
        for prefix in ("vipmesh", "vipmesh-a")
        for days in (None, *range(1, 366))
        for each in store_objects(LogLifecycle.ILM, prefix, days)
        if each.path.startswith("/_index_template/")
    ]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("kind", [LogLifecycle.ILM, LogLifecycle.ISM])
async def test_templates_and_policies_are_made_once_before_the_first_document(
    bulk: tuple[BulkServer, str], kind: LogLifecycle
) -> None:
    server, url = bulk
    sink = ElasticsearchSink(LogStoreAccess((url,)), "vipmesh", kind)
    assert not await sink.deliver([living(7), *documents("b", first=9)])
    assert set(server.indices) == {"vipmesh-shop-db.7d-2026.11.30", "vipmesh-shop-db"}
    assert len(server.objects) == 3
    server.objects.clear()
    assert not await sink.deliver([living(7)])
    assert not server.objects, "they are not asked about again"
    await sink.close()


async def test_what_the_operator_changed_is_left(bulk: tuple[BulkServer, str]) -> None:
    server, url = bulk
    server.objects["/_ilm/policy/vipmesh-7d"] = {"mine": True}
    sink = ElasticsearchSink(LogStoreAccess((url,)), "vipmesh", LogLifecycle.ILM)
    assert not await sink.deliver([living(7)])
    assert server.objects["/_ilm/policy/vipmesh-7d"] == {"mine": True}
    await sink.close()


@pytest.mark.parametrize("status", [400, 403, 500])
async def test_nothing_is_stored_that_would_not_be_deleted(bulk: tuple[BulkServer, str], status: int) -> None:
    server, url = bulk
    server.object_status = status
    sink = ElasticsearchSink(LogStoreAccess((url,)), "vipmesh", LogLifecycle.ILM)
    with pytest.raises(LogSinkError, match=rf"/_ilm/policy/vipmesh-7d: .*status {status}.*manage_ilm") as caught:
        await sink.deliver([living(7)])
    assert caught.value.code is Code.LOG_LIFECYCLE
    assert not server.indices
    server.object_status = 200
    assert not await sink.deliver([living(7)])
    await sink.close()
