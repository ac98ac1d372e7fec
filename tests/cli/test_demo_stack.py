"""How many instances the demo starts, and where they listen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.demo_stack import MAX_DEMO_INSTANCES, demo_endpoints, demo_override
from mesh.sources.compose.parse import read_compose_file, read_compose_project
from mesh.sources.compose.references import ComposeText, NoComposeFiles
from tests.cli.test_check import SNIPPET

ROUTED = "labels: {mesh.routing.port_80: web.test"


def endpoints(service: str, name: str = "web") -> list[str] | None:
    """What the demo adds for a service, given as what is below its name."""
    return demo_endpoints(read_compose_file(f"services: {{{name}: {{{service}}}}}", "c.yaml", {})).get(name)


def test_the_first_snippet_of_the_docs_gets_the_instances_that_it_asks_for() -> None:
    content = read_compose_file(SNIPPET, "c.yaml", {})
    assert demo_endpoints(content) == {"server": ["127.0.0.11:18080", "127.0.0.12:18080"]}


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (ROUTED + "}", ["127.0.0.11:18080"]),
        (ROUTED + ", mesh.scale: '2'}, x-endpoints: [127.0.0.11, 127.0.0.12]", None),
        (ROUTED + ", mesh.scale: '2'}, x-endpoints: ['127.0.0.11:90']", ["127.0.0.11:90", "127.0.0.12:90"]),
        (ROUTED + ", mesh.scale: '1'}, x-endpoints: ['127.0.0.12:90', '127.0.0.13:90']", ["127.0.0.12:90"]),
        (ROUTED + "}, x-endpoints: ['127.0.0.12:90', '127.0.0.13:90']", None),
        (ROUTED + "}, scale: 2", ["127.0.0.11:18080", "127.0.0.12:18080"]),
        (ROUTED + "}, deploy: {replicas: 2}", ["127.0.0.11:18080", "127.0.0.12:18080"]),
        (ROUTED + ", mesh.scale: '1'}, deploy: {replicas: 2}", ["127.0.0.11:18080"]),
        ("labels: {mesh.routing.port_8080: web.test}", ["127.0.0.11:8080"]),
        ("labels: {mesh.scale: '3'}", None),
        (ROUTED + "}, profiles: [x]", None),
    ],
)
def test_a_service_gets_as_many_as_it_wants(service: str, expected: list[str] | None) -> None:
    assert endpoints(service) == expected


@given(st.lists(st.integers(1, 120), min_size=1, max_size=6))
def test_addresses_are_given_once_and_their_number_is_bounded(scales: list[int]) -> None:
    services = ", ".join(
        f"s{n}: {{labels: {{mesh.routing.port_80: s{n}.test, mesh.scale: '{scale}'}}}}"
        for n, scale in enumerate(scales)
    )
    text = f"services: {{{services}}}"
    found = demo_endpoints(read_compose_file(text, "c.yaml", {}))
    given_out = [endpoint for listed in found.values() for endpoint in listed]
    assert len(given_out) == len(set(given_out)) == min(sum(scales), MAX_DEMO_INSTANCES)
    files = [ComposeText("c.yaml", text), ComposeText("override.yaml", demo_override(found))]
    content = read_compose_project(files, "", [{}, {}], NoComposeFiles())
    assert {name: list(map(str, service.endpoints or ())) for name, service in content.services.items()} == {
        **{name: list[str]() for name in content.services},
        **found,
    }
