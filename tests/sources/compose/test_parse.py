"""Parsing compose files: what is read, and the problems that are reported."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.codes import Code
from mesh.model.problem import Severity
from mesh.sources.compose.model import ComposeFile, ComposeService, project_name
from mesh.sources.compose.parse import read_compose_file, read_compose_project
from mesh.sources.compose.references import ComposeText, NoComposeFiles

EXAMPLE = Path(__file__).parents[3] / "examples" / "restserver" / "compose.yaml"

OLD_FORM = """\
server:
  image: test_service
  labels:
    aliyun.routing.port_80: restserver.local
    aliyun.scale: "2"
client:
  image: test_app
  external_links: ["restserver.local"]
"""


def compose(text: str, **env: str) -> ComposeFile:
    return read_compose_file(text, "c.yaml", env)


def sound(text: str, **env: str) -> ComposeFile:
    file = compose(text, **env)
    assert file.problems == ()
    assert not file.broken
    return file


def server(text: str, **env: str) -> ComposeService:
    return sound(text, **env).services["server"]


def found(file: ComposeFile) -> list[tuple[str, str | None, str]]:
    return [(str(p.severity), p.where, p.subject) for p in file.problems]


def test_services_labels_and_endpoints_keep_their_lines() -> None:
    file = sound(
        """\
name: demo
services:
  server:
    image: x
    labels:
      mesh.routing.port_80: web
      other: "1"
    x-endpoints:
      - 127.0.0.11:18080
      - "fd00::1"
  client: {image: y}
"""
    )
    assert file.project == "demo"
    assert list(file.services) == ["server", "client"]
    service = file.services["server"]
    assert (service.name, service.where) == ("server", "c.yaml:3")
    assert service.labels == {"mesh.routing.port_80": "web", "other": "1"}
    assert service.label_where == {"mesh.routing.port_80": "c.yaml:6", "other": "c.yaml:7"}
    assert service.endpoints is not None
    assert [(e.address, e.port, e.where) for e in service.endpoints] == [
        ("127.0.0.11", 18080, "c.yaml:9"),
        ("fd00::1", None, "c.yaml:10"),
    ]
    assert (file.services["client"].labels, file.services["client"].endpoints) == ({}, None)


def test_the_old_form_has_its_services_at_the_top() -> None:
    file = sound(OLD_FORM)
    assert list(file.services) == ["server", "client"]
    assert file.services["server"].labels == {"aliyun.routing.port_80": "restserver.local", "aliyun.scale": "2"}


def test_the_example_is_read() -> None:
    file = sound(EXAMPLE.read_text())
    endpoints = file.services["server"].endpoints
    assert [str(e) for e in endpoints or ()] == ["127.0.0.11:18080", "127.0.0.12:18080"]


def test_labels_in_list_form_are_interpolated_as_a_whole() -> None:
    text = 'services: {server: {labels: ["a=b=c", "$K=${V:-1}", "alone", "n=010"]}}'
    assert server(text, K="k").labels == {"a": "b=c", "k": "1", "alone": "", "n": "010"}


def test_labels_in_map_form_become_text_and_keep_their_keys() -> None:
    text = "services: {server: {labels: {a: true, b: 1, c: null, d: , e: 1.50, $F: $F, '80': x, g: $$F}}}"
    labels = server(text, F="f").labels
    assert labels == {"a": "true", "b": "1", "c": "", "d": "", "e": "1.5", "$F": "f", "80": "x", "g": "$F"}


def test_anchors_and_merge_keys_are_followed() -> None:
    service = server(
        """\
x-common: &common
  labels: &labels
    mesh.routing.scheduler: rr
    mesh.routing.weight: "1"
services:
  server:
    <<: *common
    labels:
      <<: *labels
      mesh.routing.weight: "2"
"""
    )
    assert service.labels == {"mesh.routing.scheduler": "rr", "mesh.routing.weight": "2"}
    assert service.label_where["mesh.routing.scheduler"] == "c.yaml:3"


@pytest.mark.parametrize("labels", ["", "null", "{}", "[]"])
def test_no_labels(labels: str) -> None:
    assert server(f"services:\n  server:\n    labels: {labels}\n").labels == {}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", None, "10.0.0.1")),
        ("10.0.0.1:80", ("10.0.0.1", 80, "10.0.0.1:80")),
        ("FD00:0::1", ("fd00::1", None, "fd00::1")),
        ("[fd00::1]", ("fd00::1", None, "fd00::1")),
        ("[fd00::1]:80", ("fd00::1", 80, "[fd00::1]:80")),
        ("$HOST:80", ("10.9.9.9", 80, "10.9.9.9:80")),
    ],
)
def test_endpoints(entry: str, expected: tuple[str, int | None, str]) -> None:
    (endpoint,) = server(f'services: {{server: {{x-endpoints: ["{entry}"]}}}}', HOST="10.9.9.9").endpoints or ()
    assert (endpoint.address, endpoint.port, str(endpoint)) == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("localhost:80", '"localhost" is not an address'),
        ("10.0.0.1:0", '"0" is not a port'),
        ("10.0.0.1:", '"" is not a port'),
        ("10.0.0.256", "is not an address"),
        ("0.0.0.0:80", "is not the address of one instance"),
        ("fe80::1%eth0", "is not the address of one instance"),
        ("[fd00::1]80", "is not an address"),
        ("10.0.0.1", "10.0.0.1 is listed twice"),
        ("${NONE:?}", "variable NONE is required"),
    ],
)
def test_a_bad_endpoint_is_left_out_and_the_others_stay(entry: str, reason: str) -> None:
    file = compose(f'services:\n  server:\n    x-endpoints:\n    - 10.0.0.1\n    - "{entry}"\n    - 10.0.0.2\n')
    assert [str(e) for e in file.services["server"].endpoints or ()] == ["10.0.0.1", "10.0.0.2"]
    assert found(file) == [("error", "c.yaml:5", "service server, x-endpoints")]
    assert reason in file.problems[0].reason
    assert not file.broken


@pytest.mark.parametrize(
    ("text", "problems", "reason"),
    [
        pytest.param(
            "labels: 5", [("error", "c.yaml:3", "service server, labels")], "neither a mapping nor a list", id="kind"
        ),
        pytest.param(
            "labels: {a: [1]}", [("error", "c.yaml:3", "service server, label a")], "not a single text", id="list"
        ),
        pytest.param(
            "labels: [{a: b}]", [("error", "c.yaml:3", "service server, labels")], "not a single text", id="item"
        ),
        pytest.param(
            "labels: [a=1, a=2]", [("error", "c.yaml:3", "service server, label a")], "again on line 3", id="twice"
        ),
        pytest.param(
            "labels: {a: '${'}",
            [("error", "c.yaml:3", "service server, label a")],
            "is not closed",
            id="$",
        ),
        pytest.param(
            "labels: {a: '${N:?set it}'}", [("error", "c.yaml:3", "service server, label a")], "(set it)", id="required"
        ),
        pytest.param(
            "x-endpoints: 10.0.0.1",
            [("error", "c.yaml:3", "service server, x-endpoints")],
            "not a list",
            id="endpoints",
        ),
        pytest.param("extends: x", [("error", "c.yaml:3", "service server, extends")], 'no service "x"', id="extends"),
        pytest.param("labels: !x {}", [("warning", "c.yaml:3", "service server, labels")], "the tag !x", id="tag"),
    ],
)
def test_an_invalid_part_leaves_the_rest(text: str, problems: list[tuple[str, str, str]], reason: str) -> None:
    file = compose(f"services:\n  server:\n    {text}\n  other: {{labels: {{b: c}}}}\n")
    assert found(file) == problems
    assert reason in file.problems[0].reason
    assert file.services["other"].labels == {"b": "c"}
    assert file.services["server"].labels == {}
    assert not file.broken


def test_an_unset_variable_is_empty_and_a_warning() -> None:
    file = compose("services: {server: {labels: {a: 'x${NONE}'}}}")
    assert file.services["server"].labels == {"a": "x"}
    assert file.problems[0].severity is Severity.WARNING
    assert "NONE is not set" in file.problems[0].reason


def test_an_unquoted_number_that_changes_is_a_warning_for_labels_of_the_mesh() -> None:
    file = compose("services:\n server:\n  labels:\n   mesh.routing.release: 1.10\n   mesh.x: True\n   other: 1.10")
    assert file.services["server"].labels == {"mesh.routing.release": "1.1", "mesh.x": "true", "other": "1.1"}
    assert found(file) == [("warning", "c.yaml:4", "service server, label mesh.routing.release")]
    assert file.problems[0].remedy == 'write "1.10" with the quotes'


@pytest.mark.parametrize("name", ["'a/b'", "''", "'a b'", "ü"])
def test_a_service_needs_a_name_that_compose_accepts(name: str) -> None:
    file = compose(f"services: {{{name}: {{image: x}}, server: {{image: x}}}}")
    assert list(file.services) == ["server"]
    assert [p.severity for p in file.problems] == [Severity.ERROR]


def test_an_include_that_cannot_be_read_breaks_the_project() -> None:
    file = compose("include: [x.yaml]\nservices: {}")
    assert (found(file), file.broken) == ([("error", "c.yaml:1", "include")], True)


def test_a_misspelt_services_key_is_reported() -> None:
    file = compose("service:\n  server: {image: x}\n")
    assert found(file) == [("warning", "c.yaml:1", "key service"), ("error", "c.yaml:1", "the file")]
    assert file.broken


@pytest.mark.parametrize("name", ["Demo", "-x", "[a]", ""])
def test_a_bad_project_name_is_an_error_and_does_not_count(name: str) -> None:
    file = compose(f"name: {name}\nservices: {{}}")
    assert file.project is None
    assert found(file) == [("error", "c.yaml:1", "name")]


def test_a_project_name_is_interpolated() -> None:
    assert sound("name: ${P:-demo}\nservices: {}").project == "demo"


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("a: b\n c: d", "c.yaml:2:3", "mapping values are not allowed"),
        ("", "c.yaml:1", "it is empty"),
        ("- a", "c.yaml:1", "not a mapping"),
        ("version: '3'", "c.yaml:1", "it has no services"),
        ("x-a: 1\nservices:\n", "c.yaml:2", "services is not a mapping"),
        ("services:\n  server:\n    labels: {[a]: b}", "c.yaml:3", "a key is not text"),
        ("services:\n  a: {image: x}\n  b: {}\n  a: {image: y}", "c.yaml:4", '"a" is on line 2 and again on line 4'),
        ("services:\n  a:\n    labels:\n      k: 1\n      k: 1\n", "c.yaml:5", '"k" is on line 4 and again on line 5'),
    ],
)
def test_a_file_that_compose_would_refuse_is_broken(text: str, where: str, reason: str) -> None:
    file = compose(text)
    assert file.broken
    (problem,) = file.problems
    assert (problem.severity, problem.where) == (Severity.ERROR, where)
    assert reason in problem.reason


def test_a_file_without_services_is_valid() -> None:
    assert sound("services: {}").services == {}


def project(*texts: str, **env: str) -> ComposeFile:
    """Several files, `1.yaml` and so on, as one project."""
    files = [ComposeText(f"{number}.yaml", text) for number, text in enumerate(texts, start=1)]
    return read_compose_project(files, "", [env] * len(files), NoComposeFiles())


def test_later_files_override_service_by_service() -> None:
    merged = project(
        "services: {a: {labels: {x: '1', y: '1'}, x-endpoints: [10.0.0.1]}, b: {x-endpoints: [10.0.0.2]}}",
        "\nservices: {a: {labels: {y: '2'}, x-endpoints: [10.0.0.9]}, b: {}, c: {}}",
    ).services
    assert list(merged) == ["a", "b", "c"]
    assert merged["a"].labels == {"x": "1", "y": "2"}
    assert merged["a"].label_where == {"x": "1.yaml:1", "y": "2.yaml:2"}
    assert [str(e) for e in merged["a"].endpoints or ()] == ["10.0.0.9"]
    assert [str(e) for e in merged["b"].endpoints or ()] == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("directory", "project"),
    [("restserver", "restserver"), ("My App.v2", "myappv2"), ("_-x_1-", "x_1-"), ("", "default"), ("日本", "default")],
)
def test_a_directory_names_a_project_as_compose_does(directory: str, project: str) -> None:
    assert project_name(directory) == project


LINES = [
    "services:",
    "  a:",
    "    labels:",
    "      k: v",
    "      - k=$V",
    "    x-endpoints: [10.0.0.1]",
    "  <<: &x {}",
    "name: n",
]


@given(
    st.lists(st.sampled_from([*LINES, "    <<: *x", "      ? [a]", "\t", "b: [", "  a: {labels: *x}"])).map("\n".join)
)
def test_any_text_is_parsed_without_raising_and_every_problem_has_a_location(text: str) -> None:
    file = compose(text)
    for problem in file.problems:
        assert (problem.where or "").startswith("c.yaml:")
    assert not file.broken or any(p.severity is Severity.ERROR for p in file.problems)


def test_a_variable_with_a_long_name_makes_a_short_problem() -> None:
    name = "V" * 300_000
    for text in (f"${name}", f"${{{name}}}", f"${{{name}?}}", f"${{A?{name}}}"):
        read = compose(f"services:\n  web:\n    labels:\n      mesh.probe.url: {text}\n")
        assert [problem.code for problem in read.problems] == [Code.COMPOSE_VARIABLE]
        assert len(str(read.problems[0])) < 1000


def test_unset_variables_beyond_ten_in_one_text_are_counted() -> None:
    text = "".join(f"$V{number}." for number in range(1000))
    problems = compose(f"services:\n  web:\n    labels:\n      mesh.probe.url: {text}\n").problems
    unset = [problem for problem in problems if problem.code is Code.COMPOSE_VARIABLE]
    assert len(unset) == 11
    assert "990" in unset[-1].reason
