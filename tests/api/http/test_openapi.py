"""The OpenAPI description: valid, complete, and true of real responses."""

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from mesh.api.channel.worker_channel import ChannelError, ChannelReply
from mesh.api.cluster_events import ClusterEventsDocument
from mesh.api.connectivity.plan import ConnectivityPlan
from mesh.api.connectivity.report import ConnectivityReport
from mesh.api.events import EVENT_NAMES
from mesh.api.explain.document import Explanation
from mesh.api.http.past_events import PastEventsHandler
from mesh.api.past_events import PastEventsDocument
from mesh.api.traffic_history import HistoryDocument
from mesh.api.workers import WorkersDocument
from mesh.model.codes import Code
from mesh.model.table import RealKey
from mesh.platform.logs.reading.document import ServiceLogDocument, WorkerLogDocument
from mesh.platform.stacks.rows import StackHistoryDocument, StacksDocument
from mesh.testing.channel import FakeDirectory, FakeWorkerChannel
from tests.api.http.worker import client, serving, socket_of, until

DESCRIBED: dict[str, Any] = yaml.safe_load((Path(__file__).parents[3] / "mesh" / "api" / "openapi.yaml").read_text())


def test_the_description_is_valid() -> None:
    assert not [error.message for error in OpenAPIV31SpecValidator(DESCRIBED).iter_errors()]


async def test_it_has_every_route_and_no_other(tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)) as api:
        there = {
            (route.method.lower(), route.resource.canonical)
            for route in api.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    told = {(method, path) for path, methods in DESCRIBED["paths"].items() for method in methods}
    assert told == there


SCHEMA_NAMES = {
    "InitialStateEvent": "Ready",
    "ServiceRemovedEvent": "Gone",
    "ServiceTrace": "Way",
    "TrafficEvent": "Flow",
}
"""Class -> the name of its schema, where they differ: the schemas are public and keep their names."""


def test_its_schemas_equal_those_of_the_code() -> None:
    _, components = msgspec.json.schema_components(
        [
            *EVENT_NAMES,
            ClusterEventsDocument,
            PastEventsDocument,
            HistoryDocument,
            Explanation,
            ConnectivityPlan,
            ConnectivityReport,
            WorkersDocument,
            StacksDocument,
            StackHistoryDocument,
            WorkerLogDocument,
            ServiceLogDocument,
        ],
        ref_template="#/components/schemas/{name}",
    )
    described = json.dumps(components)
    for ours, published in SCHEMA_NAMES.items():
        described = described.replace(f'{ours}"', f'{published}"')
    components = json.loads(described)
    told = {name: DESCRIBED["components"]["schemas"][name] for name in components}
    assert _bare(told) == _bare(components)


ANSWERS = [
    ("get", "/healthz", None, 200),
    ("get", "/metrics", None, 200),
    ("get", "/v1/openapi.yaml", None, 200),
    ("get", "/v1/status", None, 200),
    ("get", "/v1/status?verdicts=false", None, 200),
    ("get", "/v1/workers", None, 200),
    ("get", "/v1/explain?of=web.test", None, 200),
    ("get", "/v1/explain?of=", None, 400),
    ("get", "/v1/events/past", None, 200),
    ("get", "/v1/events/past?of=web.test&since=-60&after=1", None, 200),
    ("get", "/v1/events/past?of=", None, 400),
    ("get", "/v1/events/past?since=yesterday", None, 400),
    ("get", "/v1/events/past?since=nan", None, 400),
    ("get", "/v1/events/past?after=-1", None, 400),
    ("get", "/v1/events/past?workers=all", None, 200),
    ("get", "/v1/events/past?workers=some", None, 400),
    ("get", "/v1/events/past?workers=all&after=1", None, 400),
    ("get", "/v1/workers/w1/status", None, 200),
    ("get", "/v1/workers/w2/status", None, 200),
    ("get", "/v1/workers/w3/status", None, 404),
    ("get", "/v1/workers/w5/status", None, 502),
    ("get", "/v1/workers/w2/explain?of=web.test", None, 200),
    ("get", "/v1/workers/w2/explain?of=", None, 400),
    ("get", "/v1/workers/w2/events/past?since=-60", None, 200),
    ("get", "/v1/workers/w1/events/past", None, 200),
    ("get", "/v1/workers/w2/events/past?after=" + "1" * 3000, None, 400),
    ("get", "/v1/workers/w2/address", None, 200),
    ("get", "/v1/workers/w9/address", None, 404),
    ("get", "/v1/events/past?last=1", None, 200),
    ("get", "/v1/events/past?last=0", None, 400),
    ("get", "/v1/stacks", None, 200),
    ("get", "/v1/stacks?here=true", None, 200),
    ("get", "/v1/stacks/shop", None, 200),
    ("get", "/v1/stacks/shop/history", None, 404),
    ("post", "/v1/stacks/shop/scale", b'{"service": "web", "instances": 1}', 409),
    ("get", "/v1/history", None, 200),
    ("get", "/v1/history?of=demo/a", None, 200),
    ("get", "/v1/history?of=", None, 400),
    ("get", "/v1/logs/shop/web", None, 200),
    ("get", "/v1/logs/web?lines=1&since=-60&grep=a", None, 200),
    ("get", "/v1/logs/shop%2Fweb?workers=all", None, 200),
    ("get", "/v1/logs/web?workers=w1", None, 200),
    ("get", "/v1/logs/web?workers=w9", None, 404),
    ("get", "/v1/logs/nothing", None, 200),
    ("get", "/v1/logs/nothing?workers=w1", None, 404),
    ("get", "/v1/logs/web?lines=99999", None, 400),
    ("get", "/v1/logs/web?after=~", None, 400),
    ("get", "/v1/logs/web?after=&workers=all", None, 400),
    ("get", "/v1/test", None, 200),
    ("get", "/v1/test?of=web.test", None, 200),
    ("get", "/v1/test?of=", None, 400),
    ("post", "/v1/test", b"", 200),
    ("post", "/v1/test", b'{"name": "web.test"}', 200),
    ("post", "/v1/test", b'{"name": ""}', 400),
    ("post", "/v1/test", b'{"nam": "web.test"}', 400),
    ("post", "/v1/test", b"x" * (1 << 17), 413),
    ("get", "/v1/claims", None, 409),
    ("post", "/v1/claims/free", b'{"name": "web.test"}', 409),
    ("post", "/v1/claims/move", b'{"name": "web.test", "owner": "a/b"}', 409),
    ("post", "/v1/drain", b'{"name": "web-1"}', 200),
    ("post", "/v1/undrain", b'{"name": "web-1"}', 200),
    ("post", "/v1/drain", b'{"name": "web-1", "force": true, "together": [{"worker": "w1", "endpoint": "a"}]}', 200),
    ("post", "/v1/drain", b'{"name": "web-1", "together": [{"worker": "w1"}]}', 400),
    ("post", "/v1/weight", b'{"name": "web-1", "weight": 5}', 200),
    ("post", "/v1/weight", b'{"name": "web-1", "weight": null}', 200),
    ("post", "/v1/weight", b'{"name": "web-1"}', 400),
    ("post", "/v1/weight", b'{"name": "web-1", "weight": 65536}', 400),
    ("post", "/v1/weight", b'{"name": "web-1", "weight": -1}', 400),
    ("post", "/v1/weight", b'{"name": "web-1", "weight": 1.5}', 400),
    ("post", "/v1/workers/remove", b'{"name": "w2"}', 409),
    ("post", "/v1/stop", b'{"name": "nothing"}', 409),
    ("post", "/v1/stop", b'{"nam": "nothing"}', 400),
    ("post", "/v1/stop", b'{"name": "' + b"x" * (1 << 17) + b'"}', 413),
    ("post", "/v1/stop", b"not json", 400),
]


async def others() -> FakeWorkerChannel:
    """Worker w2 answers, w3 publishes nothing, w5 never answers."""
    places = {worker: RealKey(f"192.0.2.{worker[1:]}", 9780) for worker in ("w2", "w5")}
    channel = FakeWorkerChannel(FakeDirectory(places, frozenset({"w3"})))
    channel.hung.add("w5")
    channel.failures["w2", "/v1/explain?of="] = ChannelError(Code.CHANNEL_REFUSED, "worker w2: NAME is missing", 400)
    channel.answers["w2", "/v1/events/past?since=-60"] = ChannelReply(b'{"worker": "w2", "now": 1}')
    with tempfile.TemporaryDirectory() as name:
        async with serving(socket_of(Path(name))), client(Path(name)) as session:
            for path in ("/v1/status", "/v1/explain?of=web.test", "/v1/events/past"):
                async with session.get(path) as answer:
                    channel.answers["w2", path] = ChannelReply(await answer.read())
    return channel


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERS)
async def test_real_responses_match_the_description(
    method: str, path: str, body: bytes | None, status: int, tmp_path: Path
) -> None:
    async with (
        serving(socket_of(tmp_path), past=PastEventsHandler(lambda: "w1"), channel=await others()),
        client(tmp_path) as session,
        session.request(method, path, data=body) as answer,
    ):
        text = await answer.text()
        assert (answer.status, text) == (status, text)
    described = re.sub("/workers/w[0-9]/", "/workers/{worker}/", path.partition("?")[0])
    described = described.replace("/stacks/shop", "/stacks/{project}")
    described = re.sub("/logs/.+", "/logs/{service}", described)
    response = DESCRIBED["paths"][described][method]["responses"][str(status)]
    if "$ref" in response:
        response = DESCRIBED["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response["content"][answer.content_type]["schema"]
    read: dict[str, Callable[[str], Any]] = {
        "application/json": json.loads,
        "application/yaml": yaml.safe_load,
        "text/plain": str,
    }
    found = read[answer.content_type](text)
    Draft202012Validator({**schema, "components": DESCRIBED["components"]}).validate(found)


async def test_events_match_the_description(tmp_path: Path) -> None:
    schemas = DESCRIBED["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]["x-events"]
    async with serving(socket_of(tmp_path)) as api, client(tmp_path) as session, session.get("/v1/events") as answer:
        assert answer.content_type == "text/event-stream"
        found = await until(answer, "flow")
        api.feed.close()
        found += await until(answer, "bye")
    assert {name for name, _ in found} == {"worker", "service", "ready", "flow", "bye"}
    for name, data in found:
        Draft202012Validator({**schemas[name], "components": DESCRIBED["components"]}).validate(data)
    assert set(schemas) == {*EVENT_NAMES.values(), "bye"}


async def test_an_unknown_path_refers_to_the_description(tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)), client(tmp_path) as session:
        async with session.get("/v1/nothing") as answer:
            assert (answer.status, (await answer.json())["error"]) == (
                404,
                "no such path; /v1/openapi.yaml lists all paths",
            )
        async with session.post("/v1/status") as answer:
            assert (answer.status, (await answer.json())["error"]) == (405, "method not allowed; use GET or HEAD")


def _bare(schema: Any) -> Any:
    """Without what is for people."""
    if isinstance(schema, Mapping):
        return {key: _bare(value) for key, value in schema.items() if key not in ("description", "title")}
    return [_bare(value) for value in schema] if isinstance(schema, list | tuple) else schema


async def test_text_and_codes_are_in_the_described_fields(tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)), client(tmp_path) as session:
        async with session.get("/v1/explain?of=a.test", headers={"Accept": "text/plain"}) as answer:
            assert (answer.content_type, answer.headers["Vipmesh-Works"]) == ("text/plain", "false")
            assert "it is away [VM401]" in await answer.text()
        async with session.get("/v1/explain?of=a.test") as answer:
            assert (answer.content_type, answer.headers["Vipmesh-Works"]) == ("application/json", "false")
        async with session.post("/v1/stop", json={"name": "nothing"}) as answer:
            assert (answer.status, answer.headers["Vipmesh-Code"]) == (409, "VM254")
        async with session.post("/v1/stop", data="not json") as answer:
            assert "Vipmesh-Code" not in answer.headers
