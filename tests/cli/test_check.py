"""`check`: every problem of a file with its place."""

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mesh.cli.lint import check_files
from mesh.cli.main import main
from mesh.config.name_policy import NamePolicy
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity

EXAMPLE = Path(__file__).parents[2] / "examples" / "restserver" / "compose.yaml"

SNIPPET = """\
server:
  image: test_service
  labels:
    aliyun.routing.port_80: restserver.local
    aliyun.scale: "2"
    aliyun.probe.url: http://container:80
    aliyun.probe.initial_delay_seconds: "2"
    aliyun.probe.timeout_seconds: "2"
client:
  image: test_app
  external_links: ["restserver.local"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "compose.yaml"


def checked(*paths: Path, **env: str) -> list[Problem]:
    return check_files(paths, env, policy=NamePolicy("local"), pool=IPv4Network("10.112.0.0/16"))


def lines(problems: list[Problem], file: Path) -> list[tuple[str, str, str]]:
    return [(str(p.where).removeprefix(f"{file}:"), str(p.severity), p.subject) for p in problems]


def test_the_first_snippet_of_the_docs_is_accepted(file: Path) -> None:
    file.write_text(SNIPPET)
    assert checked(file) == []


def test_the_example_is_accepted() -> None:
    assert checked(EXAMPLE) == []


def test_problems_are_in_order_of_files_and_lines(file: Path) -> None:
    other = file.with_name("a.yaml")
    other.write_text("services: {x: {labels: {mesh.nothing: '1'}}}")
    file.write_text(
        """\
services:
  a:
    labels:
      mesh.routing.port_80: a/path
      mesh.routing.weight: heavy
    x-endpoints: [nowhere]
  b:
    labels:
      - mesh.routing.prot_80=b
"""
    )
    problems = checked(file, other)
    assert (
        lines(problems[:-1], file)
        == [
            ("4", "error", "service a, label mesh.routing.port_80"),
            ("5", "error", "service a, label mesh.routing.weight"),
            ("6", "error", "service a, x-endpoints"),
            ("9", "warning", "service b, label mesh.routing.prot_80"),
            ("9", "warning", "service b, label mesh.routing.prot_80"),
        ][: len(problems) - 1]
    )
    assert problems[-1].where == f"{other}:1"


def test_a_claim_of_two_services_is_refused_to_the_second(file: Path) -> None:
    file.write_text(
        """\
services:
  a:
    labels:
      mesh.routing.port_80: web;www
      mesh.routing.vip: 10.112.0.7
      mesh.routing.publish.port_80: "8000"
      mesh.routing.publish.port_53/udp: "8000"
  b:
    labels:
      aliyun.routing.publish.port_90: "8000"
      aliyun.routing.vip: 10.112.0.7
      aliyun.routing.port_90/tcp: other;WWW.local
"""
    )
    problems = checked(file)
    assert lines(problems, file) == [
        ("10", "error", "service b, label aliyun.routing.publish.port_90"),
        ("11", "error", "service b, label aliyun.routing.vip"),
        ("12", "error", "service b, label aliyun.routing.port_90/tcp"),
    ]
    assert problems[0].reason == f"the published tcp port 8000 is already claimed by service a ({file}:6)"
    assert problems[1].reason == f"the VIP 10.112.0.7 is already claimed by service a ({file}:5)"
    assert problems[2].reason == f"the name www.local is already claimed by service a ({file}:4)"


def test_the_default_name_of_a_service_is_claimed_too(file: Path) -> None:
    file.write_text(
        """\
services:
  a:
    labels: {mesh.routing.port_80: b}
  b:
    labels: {mesh.routing.publish.port_80: auto}
"""
    )
    assert lines(checked(file), file) == [("4", "error", "service b")]


def test_several_files_are_one_project(file: Path) -> None:
    other = file.with_name("other.yaml")
    file.write_text("services: {a: {labels: {mesh.routing.port_80: web, mesh.routing.weight: '2'}}}")
    other.write_text("services: {a: {labels: {mesh.routing.port_80: www}}, b: {labels: {mesh.routing.port_80: www}}}")
    assert checked(file) == []
    assert [(problem.code, problem.where) for problem in checked(file, other)] == [(Code.NAME_TAKEN, f"{other}:1")]


def test_services_of_different_profiles_may_hold_one_name(file: Path) -> None:
    label = "labels: {mesh.routing.port_80: web}"
    file.write_text(f"services: {{a: {{profiles: [dev], {label}}}, b: {{profiles: [prod], {label}}}}}")
    assert checked(file, COMPOSE_PROFILES="dev") == []
    assert [problem.code for problem in checked(file, COMPOSE_PROFILES="dev,prod")] == [Code.NAME_TAKEN]


@pytest.mark.parametrize(
    ("service", "link", "remedy"),
    [
        ("{image: x, expose: ['6379']}", "links: [db]", "add the label mesh.routing.port_6379: db"),
        ("{ports: ['127.0.0.1:80:5432/tcp']}", "external_links: ['db:pg']", "add the label mesh.routing.port_5432: pg"),
        ("{ports: [{target: 53}]}", "links: [db]", "add the label mesh.routing.port_53: db"),
        ("{}", "links: [db]", "add the label mesh.routing.port_<container port>: db"),
        ("{}", "links: [db], labels: {aliyun.scale: '2'}", "add the label aliyun.routing.port_<container port>: db"),
    ],
)
def test_a_service_that_others_name_needs_a_routing_label(file: Path, service: str, link: str, remedy: str) -> None:
    file.write_text(f"services:\n  db: {service}\n  a: {{{link}}}\n  b: {{{link}}}\n")
    (problem,) = checked(file)
    assert (problem.code, problem.severity, problem.where) == (
        Code.COMPOSE_LINK_WITHOUT_ROUTE,
        Severity.WARNING,
        f"{file}:2",
    )
    assert problem.remedy == remedy


@pytest.mark.parametrize("link", ["external_links: [web.local]", "external_links: [elsewhere]", "links: ['db:x']"])
def test_names_that_are_served_or_of_other_projects_are_no_problem(file: Path, link: str) -> None:
    file.write_text(f"services:\n  db: {{labels: {{mesh.routing.port_80: web}}}}\n  a: {{{link}}}\n")
    assert checked(file) == []


def test_another_number_of_addresses_than_the_scale_is_reported(file: Path) -> None:
    file.write_text("services: {a: {labels: {mesh.routing.port_80: a, mesh.scale: '3'}, x-endpoints: [10.0.0.1]}}")
    (problem,) = checked(file)
    assert (problem.code, problem.label) == (Code.LABEL_WITHOUT_EFFECT, "mesh.scale")
    assert problem.reason == "it is 3, but x-endpoints lists 1 instances, which count"


def test_routing_labels_without_endpoints_are_no_error(file: Path) -> None:
    file.write_text("services: {a: {labels: {mesh.routing.port_80: web}}}")
    assert checked(file) == []


def test_variables_are_filled_in(file: Path) -> None:
    file.write_text("services: {a: {labels: {mesh.routing.port_80: '$NAME'}}}")
    file.with_name(".env").write_text("NAME=web")
    assert checked(file) == []
    assert "a_b*" in checked(file, NAME="a_b*")[0].reason


def test_a_broken_file_is_read_as_far_as_possible(file: Path) -> None:
    file.write_text("services:\n  a: {image: x}\n  a: {image: y}\n  b: {labels: {mesh.routing.port_80: '*'}}\n")
    assert lines(checked(file), file) == [
        ("3", "error", "the file"),
        ("4", "error", "service b, label mesh.routing.port_80"),
    ]


def test_a_syntax_error_has_line_and_column(file: Path) -> None:
    file.write_text("services:\n  a: b: c\n")
    (problem,) = checked(file)
    assert (problem.severity, problem.where) == (Severity.ERROR, f"{file}:2:7")


def test_a_missing_file_is_an_error(file: Path) -> None:
    (problem,) = checked(file)
    assert (problem.severity, problem.where) == (Severity.ERROR, str(file))
    assert "No such file" in problem.reason


def test_mistakes_in_the_label_reference_are_reported_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (EXAMPLE.parents[2] / "docs" / "labels.md").read_text()
    _, _, section = text.partition("## What is said of mistakes")
    mistakes, messages = (block.partition("\n")[2] for block in section.split("```")[1:4:2])
    monkeypatch.chdir(tmp_path)
    Path("compose.yaml").write_text(mistakes)
    assert [problem.coded.line for problem in checked(Path("compose.yaml"))] == messages.splitlines()


def test_the_bounds_of_the_settings_hold(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"services: {{}}\nx-more: [{'a, ' * 120}]\n")
    monkeypatch.setenv("VIPMESH_VIP_POOL", "127.112.0.0/16")
    monkeypatch.setenv("VIPMESH_SOURCE_COMPOSE_VALUES", "100")
    assert main(["check", str(file)]) == 1
    assert "it has more than 100 keys and values" in capsys.readouterr().out
    monkeypatch.setenv("VIPMESH_SOURCE_COMPOSE_VALUES", "200")
    assert main(["check", str(file)]) == 0


def test_names_and_ports_beyond_the_quotas_are_warnings_with_the_code_of_the_daemon(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "".join(f"      mesh.routing.port_{n}: n{n}.local\n" for n in range(1, 34))
    ports = "".join(f"      mesh.routing.publish.port_{n}: '{20000 + n}'\n" for n in range(1, 18))
    file.write_text(f"name: shop\nservices:\n  web:\n    labels:\n{names}{ports}")
    monkeypatch.setenv("VIPMESH_VIP_POOL", "127.112.0.0/16")
    assert main(["check", "--json", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["errors"], found["warnings"]) == (0, 2)
    name, port = found["problems"]
    assert (name["code"], name["label"], name["where"]) == ("VM230", "mesh.routing.port_33", f"{file}:37")
    assert name["reason"] == "the name n33.local is one more than the 32 that a container may claim"
    assert (port["code"], port["label"], port["where"]) == ("VM230", "mesh.routing.publish.port_17", f"{file}:54")
    assert "raise [claims] container_ports" in port["remedy"]
    monkeypatch.setenv("VIPMESH_CLAIMS_CONTAINER_NAMES", "33")
    monkeypatch.setenv("VIPMESH_CLAIMS_CONTAINER_PORTS", "17")
    assert main(["check", str(file)]) == 0
    assert "VM230" not in capsys.readouterr().out
    monkeypatch.setenv("VIPMESH_CLAIMS_OWNER_NAMES", "30")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out.count("that one owner may hold; take names out of its labels") == 3
