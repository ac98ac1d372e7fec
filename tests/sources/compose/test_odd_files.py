"""Files that are odd and valid: `check`, the reader of `deploy` and the compose source take them, and alike.

The cases are of the compose specification (https://github.com/compose-spec/compose-spec), where it says what a form
means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mesh.cli.lint import check_files
from mesh.config.name_policy import NamePolicy
from mesh.model.problem import Severity
from mesh.platform.stacks.stack import read_stack
from mesh.sources.compose.environment import EnvironmentReader
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.limits import ComposeBudget, ComposeLimits
from mesh.sources.compose.source import ComposeSource

ROUTED = {"mesh.routing.port_80": "web.test"}
WEB = "image: 'web:1', labels: {mesh.routing.port_80: web.test}, x-endpoints: ['127.0.0.21:80']"
"""The service of each case: an instance for the compose source, and a label for all three."""


@dataclass(frozen=True)
class Case:
    """Files by their names, those of the command line, and what is to be read of the service `web`."""

    files: Mapping[str, str]
    named: tuple[str, ...] = ("a.yaml",)
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=lambda: ROUTED)
    image: str = "web:1"
    others: frozenset[str] = frozenset()
    variables: Mapping[str, str] = field(default_factory=dict)


CASES = {
    "a lone --- before and behind": Case({"a.yaml": f"---\n---\nservices: {{web: {{{WEB}}}}}\n---\n"}),
    "several documents": Case(
        {
            "a.yaml": f"services: {{web: {{{WEB}, environment: {{A: '1'}}}}}}\n---\n"
            "services: {web: {environment: {B: '2'}}}\n---\nx-a: 1\n"
        },
        environment={"A": "1", "B": "2"},
    ),
    "a byte order mark and line ends of Windows": Case({"a.yaml": f"\ufeffservices:\r\n  web: {{{WEB}}}\r\n"}),
    "keys without a value": Case(
        {"a.yaml": f"services:\n  web:\n    <<: {{{WEB}}}\n    environment:\n    ports:\n    command:\nvolumes:\n"}
    ),
    "extends across files, with paths of the other one": Case(
        {
            "a.yaml": "services: {web: {extends: {file: base/b.yaml, service: m}, environment: {B: '2'}}}",
            "base/b.yaml": "services: {m: {extends: {file: c/c.yaml, service: l}, env_file: m.env}}",
            "base/c/c.yaml": f"---\nservices: {{l: {{{WEB}, label_file: l.labels}}}}\n",
            "base/m.env": "A=1\n",
            "base/c/l.labels": "com.test.a=1\n",
        },
        environment={"A": "1", "B": "2"},
        labels={**ROUTED, "com.test.a": "1"},
    ),
    "extends in its short form": Case(
        {"a.yaml": f"services: {{base: {{image: 'web:1'}}, web: {{extends: base, {WEB}}}}}"},
        others=frozenset({"base"}),
    ),
    "include with a directory and variables of its own": Case(
        {
            "a.yaml": "include:\n  - path: [sub/b.yaml, sub/c.yaml]\n    project_directory: other\n"
            "    env_file: sub/i.env\nservices: {db: {image: db}}",
            "sub/b.yaml": f"services: {{web: {{{WEB.replace('web:1', 'web:${TAG}')}, env_file: d.env}}}}",
            "sub/c.yaml": "services: {web: {environment: {C: '1'}}}",
            "sub/i.env": "TAG=7\n",
            "other/d.env": "D=1\n",
        },
        environment={"D": "1", "C": "1"},
        image="web:7",
        others=frozenset({"db"}),
    ),
    "env_file as it is written, and one that may lack": Case(
        {
            "a.yaml": f"services:\n  web:\n    <<: {{{WEB}}}\n    env_file:\n"
            "      - {path: raw.env, format: raw}\n      - {path: no.env, required: false}\n      - more.env\n",
            "raw.env": "A='q'\nB=$X ${Y}\nC=a # b\n",
            "more.env": "export D=\"a\\nb\" # c\nE: v\nF='$x'\nG=a#b\nH=${D}\n",
        },
        environment={
            "A": "'q'",
            "B": "$X ${Y}",
            "C": "a # b",
            "D": "a\nb",
            "E": "v",
            "F": "$x",
            "G": "a#b",
            "H": "a\nb",
        },
    ),
    "label_file in both forms, below labels": Case(
        {
            "a.yaml": f"services: {{web: {{{WEB}, label_file: [one, two]}}, db: {{image: db, label_file: one}}}}",
            "one": "com.test.a=1\n# no label\nmesh.routing.port_80=other.test\n",
            "two": "com.test.a=2\n",
        },
        labels={**ROUTED, "com.test.a": "2"},
        others=frozenset({"db"}),
    ),
    "!reset of values, lists and maps": Case(
        {
            "a.yaml": f"services: {{web: {{{WEB}, ports: ['81:81'], command: [a], environment: {{A: '1', B: '2'}}}},"
            " old: {image: old}}",
            "b.yaml": "services:\n  web:\n    ports: !reset []\n    command: !reset null\n"
            "    environment:\n      A: !reset null\n  old: !reset null\n",
        },
        ("a.yaml", "b.yaml"),
        environment={"B": "2"},
    ),
    "!override of lists and maps": Case(
        {
            "a.yaml": f"services: {{web: {{{WEB}, environment: [A=1, B=2]}}}}",
            "b.yaml": "services:\n  web:\n    environment: !override [C=3]\n    labels: !override {com.test.b: '2'}\n",
            "c.yaml": "services: {web: {environment: {D: 4}}}\n",
        },
        ("a.yaml", "b.yaml", "c.yaml"),
        environment={"C": "3", "D": "4"},
        labels={"com.test.b": "2"},
    ),
    "anchors, merge keys and extensions": Case(
        {
            "a.yaml": f"x-base: &b\n  {{{WEB}, environment: &e {{A: '1', B: '1'}}}}\nx-two: &t {{command: [x]}}\n"
            "services:\n  web:\n    <<: [*b, *t]\n    environment:\n      <<: *e\n      B: 2\n      C: true\n      D:\n"
            "    x-foo: {bar: [1]}\nx-list: [1, {a: b}]\n"
        },
        environment={"A": "1", "B": "2", "C": "true"},
    ),
    "short and long forms": Case(
        {
            "a.yaml": f"services:\n  web:\n    <<: {{{WEB}}}\n"
            "    ports: [81, '8082:82', '9083-9084:83-84/udp', {target: 85, published: '8085', mode: host}]\n"
            "    volumes: [/data, 'v:/v:ro', './h:/h:z', {type: tmpfs, target: /t, tmpfs: {size: 10mb, mode: 1777}},\n"
            "      {type: bind, source: ./h, target: /i, bind: {create_host_path: true}}]\n"
            "    depends_on: {db: {condition: service_started, required: false, restart: true}}\n"
            "    environment: [A=1, B, C=]\n    labels: [com.test.a=1, com.test.b, mesh.routing.port_80=web.test]\n"
            "  db: {image: db, depends_on: [log]}\n  log: {image: log}\nvolumes: {v: }\n"
        },
        environment={"A": "1", "B": "given", "C": ""},
        labels={**ROUTED, "com.test.a": "1", "com.test.b": ""},
        others=frozenset({"db", "log"}),
        variables={"B": "given"},
    ),
    "scalars of other kinds": Case(
        {
            "a.yaml": f"services:\n  web:\n    <<: {{{WEB}}}\n    environment:\n      D: 2026-12-01\n      O: 0o17\n"
            "      Y: yes\n      T: 12:30:45\n      B: |\n        x\n        y\n      S: !!str 1\n"
        },
        environment={"D": "2026-12-01", "O": "15", "Y": "yes", "T": "12:30:45", "B": "x\ny\n", "S": "1"},
    ),
    "variables in each other": Case(
        {
            "a.yaml": f"services: {{web: {{{WEB.replace('web:1', 'web:${T:-${U-7}}')},"
            " environment: {A: '$$x', B: '${N:+y}', C: '${K+z}', D: '${K:?e}'}}}",
            ".env": "export K='k'\n",
        },
        environment={"A": "$x", "B": "", "C": "z", "D": "k"},
        image="web:7",
    ),
    "a second file that says nothing of the service": Case(
        {"a.yaml": f"services: {{web: {{{WEB}}}}}", "b.yaml": "services: {web: null}\n"}, ("a.yaml", "b.yaml")
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_odd_and_valid_file_is_read_alike_by_all(case: Case, tmp_path: Path) -> None:
    for name, text in case.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, newline="")
    paths = [tmp_path / name for name in case.named]
    checked = check_files(paths, case.variables, policy=NamePolicy("local"), pool=IPv4Network("10.112.0.0/16"))
    assert [each.coded.line for each in checked if each.severity is Severity.ERROR] == []

    limits = ComposeLimits()
    project = load_compose_project(paths, case.variables, limits)
    reader = EnvironmentReader(project.files, ComposeBudget(limits, 4))
    environments = {each.name: reader.read(each)[0] for each in project.content.services.values()}
    stack = read_stack(project.content, "shop", environments, "mesh.internal", str(tmp_path))
    services = {service.name: service for service in stack.services}
    assert [each.coded.line for each in stack.problems if each.severity is Severity.ERROR] == []
    assert not stack.broken
    assert set(services) == {"web", *case.others}
    assert dict(environments["web"]) == case.environment
    assert dict(project.content.services["web"].labels) == case.labels
    assert services["web"].container.image == case.image

    instances, problems = ComposeSource(paths, env=case.variables).read()
    assert [each.coded.line for each in problems if each.severity is Severity.ERROR] == []
    (instance,) = instances
    assert dict(instance.labels) == case.labels
