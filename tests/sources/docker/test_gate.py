"""One event or container that cannot be read costs no other."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from mesh.model.codes import Code
from mesh.sources.docker.events import EventMeaning, event_meaning
from mesh.sources.docker.gate import MAX_EVENT_BYTES, UNREADABLE_EVENT, EventLines, convert_containers, decode_event
from mesh.sources.docker.inspection import StopConfig
from mesh.sources.docker.instances import ContainerHistory, InstanceRules, read_instances
from mesh.sources.docker.messages import DockerEvent
from mesh.sources.docker.source import DockerSource
from tests.builders import WEB_LABELS
from tests.sources.docker.test_client_errors import CONTAINER, ID, SENSE, Fake
from tests.system.docker.test_source import RULES, watching

OTHER = "e" * 64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
GOOD_EVENT = {"Type": "container", "Action": "start", "Actor": {"ID": ID, "Attributes": {"mesh.x": "y"}}, "timeNano": 5}
POISON: dict[str, dict[str, Any]] = {
    "labels": {"Labels": {"mesh.routing.port_80": 5}},
    "a list of labels": {"Labels": ["mesh.x"]},
    "ports": {"Ports": [{"PrivatePort": "eighty"}]},
    "networks": {"NetworkSettings": {"Networks": [1]}},
    "an address": {"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "not an address"}}}},
    "an address with a scope": {"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.1.0.1/16"}}}},
    "the mode of its network": {"HostConfig": {"NetworkMode": 7}},
    "names": {"Names": {"a": "b"}},
    "its status": {"Status": None},
    "a project": {"Labels": {**WEB_LABELS, "com.docker.compose.project": "\n", "com.docker.compose.service": "x"}},
}


@given(JSON)
def test_any_event_is_an_event(value: object) -> None:
    line = json.dumps(value).encode()
    event = decode_event(line)
    assert isinstance(event_meaning(event, None), EventMeaning)
    assert isinstance(event_meaning(event, StopConfig()), EventMeaning)


@pytest.mark.parametrize("line", [b"", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"Type": 5}', b'"x"', b"1e400"])
def test_a_line_that_is_no_event_is_a_reason_to_list(line: bytes) -> None:
    assert decode_event(line) is UNREADABLE_EVENT
    assert event_meaning(decode_event(line), None) is EventMeaning.LOOK


def test_an_event_is_read_as_it_is() -> None:
    event = decode_event(json.dumps(GOOD_EVENT).encode())
    assert (event.type, event.action, event.actor.id, event.nanoseconds) == ("container", "start", ID, 5)
    assert isinstance(event, DockerEvent)


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_a_poisoned_container_is_refused_alone(poison: dict[str, Any]) -> None:
    bad = {**CONTAINER, "Id": OTHER, "Names": ["/bad"]} | poison
    found = convert_containers([bad, CONTAINER])
    listing = read_instances(found, {"bridge": "bridge"}, InstanceRules("mesh.internal"), ContainerHistory())
    assert [instance.name for instance in listing.instances if instance.name != "bad"] == ["web-1"]
    if len(listing.instances) == 1:
        assert [problem.code for problem in listing.problems] == [Code.CONTAINER_UNUSABLE]
        assert all(str(problem).isprintable() for problem in listing.problems)


@pytest.mark.parametrize("entry", [{}, {"Id": "x"}, {"State": "running"}, {"Id": 5, "State": "running"}])
def test_what_is_no_container_is_no_empty_list(entry: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        convert_containers([CONTAINER, entry])


@given(st.dictionaries(st.sampled_from(["Names", "Status", "Labels", "Ports", "HostConfig", "NetworkSettings"]), JSON))
def test_any_fields_cost_no_other_container(fields: dict[str, Any]) -> None:
    found = convert_containers([{"Id": OTHER, "State": "running", **fields}, CONTAINER])
    listing = read_instances(found, {}, InstanceRules("mesh.internal"), ContainerHistory())
    assert "web-1" in [instance.name for instance in listing.instances]


class Poisonous(Fake):
    """Sends poisoned events, those of the past included, and has a poisoned container beside the good one."""

    def __init__(self, *lines: bytes) -> None:
        super().__init__()
        self.lines = lines
        self.asked = 0

    @override
    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        response = web.StreamResponse()
        await response.prepare(request)
        for line in self.lines:
            await response.write(line + b"\n")
        if "until" not in request.query:
            await self._end.wait()
        return response


POISONED_EVENTS = [
    {"Type": "container", "Action": "kill", "Actor": {"ID": ID, "Attributes": {"signal": "9" * 400}}, "timeNano": 1},
    {"Type": "container", "Action": "kill", "Actor": {"ID": ID, "Attributes": {"mesh.x": 5}}},
    {"Type": "container", "Action": ["kill"], "Actor": None},
    {"Type": 5, "timeNano": "x"},
    {"Type": "network", "timeNano": 10**30},
    {"Type": "container", "Actor": {"Attributes": {"mesh.x": "y" * 2_000_000}}},
    5,
    ["x"],
]


@given(
    st.lists(st.sampled_from([json.dumps(GOOD_EVENT).encode(), b"", b"x", b" {} "]), max_size=6), st.integers(1, 300)
)
def test_lines_are_read_in_pieces_of_any_size(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    reader = EventLines()
    found = [event for at in range(0, len(data), size) for event in reader.feed(data[at : at + size])]
    assert found == [decode_event(line) for line in lines if line.strip()]


@pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 25])
def test_a_line_that_is_too_long_costs_no_other(size: int) -> None:
    line = json.dumps(GOOD_EVENT).encode()
    data = line + b"\n" + b"x" * (3 * MAX_EVENT_BYTES) + b"\n" + line + b"\n"
    reader = EventLines()
    found = [event for at in range(0, len(data), size) for event in reader.feed(data[at : at + size])]
    assert found == [decode_event(line), UNREADABLE_EVENT, decode_event(line)]


async def test_poisoned_events_are_skipped_and_never_replayed_to_death(tmp_path: Path) -> None:
    fake = Poisonous(*(json.dumps(event).encode() for event in POISONED_EVENTS))
    bad = {**CONTAINER, "Id": OTHER, "Names": ["/bad"], "Labels": {"mesh.routing.port_80": 5}}
    fake.instead["containers/json"] = "application/json", json.dumps([bad, *SENSE["containers/json"]]).encode()
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES, answer=5.0)
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {"web-1"})
            await asyncio.sleep(0.5)
            assert source.trouble is None
            assert fake.asked == 2, "those of the past, and one stream that is still open"
