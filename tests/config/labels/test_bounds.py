"""The labels of one container cost little time, whatever they are."""

import time

import pytest

from mesh.config.labels.parse import ParsedLabels, parse_labels
from mesh.config.labels.values import MAX_NAMES
from mesh.model.codes import Code
from mesh.model.validation import validate_service

NAMES = ";".join(f"n{number}.t" for number in range(560))  # some 4,000 characters, what a container may have in a label
HOSTILE = {
    "names": {f"mesh.routing.port_{port}": f"{NAMES}:{port}" for port in range(1, 256)},
    "distinct names": {
        f"mesh.routing.port_{port}": ";".join(f"p{port}n{n}.t:{port}" for n in range(290)) for port in range(1, 256)
    },
    "clashing ports": {f"mesh.routing.port_{port}": "a.test:80" for port in range(1, 256)},
    "published ports": {f"mesh.routing.publish.port_{port}": "80" for port in range(1, 256)},
    "unknown labels": {f"mesh.{'x' * 90}{number}": "v" * 4000 for number in range(256)},
    "headers": {
        "mesh.routing.port_80": "a.test",
        "mesh.probe.url": "http://container",
        **{f"mesh.probe.header.x-{number}": "v" * 4000 for number in range(250)},
    },
    "dashes": {f"mesh.routing.port_{port}": "a" + "-" * 4000 for port in range(1, 256)},
    "statuses": {"mesh.probe.url": "http://container", "mesh.probe.expect_status": ",".join(["200"] * 1000)},
    "escapes": {"mesh.probe.url": "udp://container:1", "mesh.probe.send": "\\" * 4000},
}


def parse(labels: dict[str, str]) -> ParsedLabels:
    return parse_labels(labels, owner="a/b", subject="service b", domain="mesh.internal")


@pytest.mark.parametrize("labels", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_labels_of_a_container_stall_the_loop(labels: dict[str, str]) -> None:
    best, parsed = 1.0, parse({})
    for _ in range(3):  # the machine may be busy
        began = time.thread_time()
        parsed = parse(labels)
        best = min(best, time.thread_time() - began)
    assert best < 0.1
    if parsed.service is not None:
        validate_service(parsed.service)


def test_more_names_than_a_container_may_have_are_refused_with_the_number() -> None:
    parsed = parse({"mesh.routing.port_80": ";".join(f"n{number}.t" for number in range(MAX_NAMES + 1))})
    assert parsed.service is None
    (problem,) = parsed.problems
    assert problem.code is Code.VALUE_OUT_OF_RANGE
    assert str(problem).endswith(f"it lists more than {MAX_NAMES} names; write at most {MAX_NAMES}")
