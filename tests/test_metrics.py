"""Metrics: read back by Prometheus' own parser, and documented."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from mesh.metrics import render
from mesh.status import EndpointStatus, ServiceStatus, WorkerStatus

DOCS = Path(__file__).parent.parent / "docs" / "metrics.md"


def endpoint(health: str, serving: bool, drain: str | None = None) -> EndpointStatus:
    return EndpointStatus("id", "w1", "10.2.0.1", None, 1, None, health, serving, None, drain)


ENDPOINTS = (
    endpoint("healthy", True),
    endpoint("not probed", True),
    endpoint("healthy", False),
    endpoint("healthy", False, "asked"),
    endpoint("unhealthy", False),
    endpoint("starting", False),
)
SERVICE = ServiceStatus('evil"\n{} 7', "shop/web", "10.112.0.7", (), (), ENDPOINTS)
STATUS = WorkerStatus(
    '1"\n',
    "w1",
    "ipvs",
    "",
    (),
    (SERVICE, SERVICE),
    problems=("a", "b", "c"),
    failures=("d",),
    frozen=("e",),
    repairs=9,
)


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("state", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_read_back() -> None:
    assert samples(render(STATUS).decode()) == {
        ("vipmesh_info", ""): 1,
        ("vipmesh_services", ""): 2,
        ("vipmesh_endpoints", "serving"): 4,
        ("vipmesh_endpoints", "waiting"): 2,
        ("vipmesh_endpoints", "draining"): 2,
        ("vipmesh_endpoints", "unhealthy"): 2,
        ("vipmesh_endpoints", "starting"): 2,
        ("vipmesh_problems", ""): 3,
        ("vipmesh_failures", ""): 1,
        ("vipmesh_frozen", ""): 1,
        ("vipmesh_repairs_total", ""): 9,
    }


def test_every_one_is_documented() -> None:
    told = set(re.findall(r"`(vipmesh_\w+)", DOCS.read_text()))
    assert told == {name for name, _ in samples(render(STATUS).decode())}
