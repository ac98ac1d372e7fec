"""`extends`, `include`, `label_file`, profiles and several documents: followed, or refused for one service alone."""

import os
from pathlib import Path

import pytest

from mesh.model.codes import Code
from mesh.model.problem import Severity
from mesh.sources.compose.files import MAX_REFERENCED_FILES, load_compose_project
from mesh.sources.compose.model import ComposeFile, ComposeService


class Stack:
    """A directory with the files of one project."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def read(self, *names: str, **env: str) -> ComposeFile:
        return load_compose_project([self.directory / name for name in names or ("c.yaml",)], env).content

    def sound(self, *names: str, **env: str) -> dict[str, ComposeService]:
        content = self.read(*names, **env)
        assert (content.problems, content.broken, content.refused) == ((), False, frozenset())
        return dict(content.services)

    def problems(self, *names: str, **env: str) -> list[tuple[str, str, str]]:
        """Severity, `FILE:LINE` below the directory, and subject."""
        found = self.read(*names, **env).problems
        return [(str(p.severity), str(p.where).removeprefix(f"{self.directory}/"), p.subject) for p in found]


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def test_a_service_extends_one_of_the_same_file_and_one_of_another(stack: Stack) -> None:
    stack.write(
        "base/common.yaml",
        "services:\n"
        "  root: {labels: {a: root, b: root, r: $V}}\n"
        "  common:\n    extends: root\n    labels: [b=common]\n    label_file: x.labels\n    x-endpoints: [10.0.0.1]\n",
    )
    stack.write("base/x.labels", "f=file\nb=file\n")
    stack.write(
        "c.yaml",
        "services:\n"
        "  web:\n    extends: {file: base/common.yaml, service: common}\n    labels: {c: web}\n"
        "  again:\n    extends:\n      service: web\n    labels: {a: again}\n",
    )
    services = stack.sound(V="v")
    assert services["web"].labels == {"a": "root", "b": "common", "r": "v", "f": "file", "c": "web"}
    assert services["again"].labels == {**services["web"].labels, "a": "again"}
    assert [str(endpoint) for endpoint in services["again"].endpoints or ()] == ["10.0.0.1"]
    assert services["web"].label_where["b"] == f"{stack.directory}/base/common.yaml:5"
    assert services["web"].label_where["f"] == f"{stack.directory}/base/x.labels:1"


BAD_EXTENDS = [
    ("extends: none", 'no service "none"'),
    ("extends: bad", "leads back to itself"),
    ("extends: {file: none.yaml, service: x}", "none.yaml cannot be read: No such file"),
    ("extends: {file: c.yaml, service: none}", "in that file"),
    ("extends: {file: broken.yaml, service: x}", "broken.yaml:"),
    ("extends: {file: twice.yaml, service: x}", 'the key "x" is on line'),
    ("extends: {file: /dev/zero, service: x}", "/dev/zero cannot be read"),
    ("extends: {file: fifo, service: x}", "it is not a regular file"),
    ("extends: {file: '$NONE/x', service: x}", "uses a variable that is not set"),
    ("extends: {file: c.yaml}", "it names no service"),
    ("extends: [x]", "it names no service"),
    ("label_file: none.labels", "none.labels cannot be read"),
    ("label_file: bad.labels", "bad.labels:2: it is not NAME=VALUE"),
    ("label_file: fifo", "it is not a regular file"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_EXTENDS, ids=lambda value: value)
def test_a_reference_that_cannot_be_followed_refuses_its_service_alone(stack: Stack, line: str, reason: str) -> None:
    stack.write("broken.yaml", "services: {x: [")
    stack.write("twice.yaml", "services: {x: {}, x: {}}")
    stack.write("bad.labels", "a=1\nsecret phrase\n")
    os.mkfifo(stack.directory / "fifo")
    stack.write("c.yaml", f"services:\n  good: {{labels: {{a: b}}}}\n  bad:\n    {line}\n")
    content = stack.read()
    assert (content.broken, set(content.refused)) == (False, {"bad"})
    assert content.services["good"].labels == {"a": "b"}
    (problem,) = content.problems
    assert (problem.code, problem.severity) == (Code.COMPOSE_NOT_FOLLOWED, Severity.ERROR)
    assert problem.subject == f"service bad, {line.partition(':')[0]}"
    assert problem.where == f"{stack.directory}/c.yaml:4"
    assert reason in problem.reason
    assert "secret" not in str(problem)


def test_a_long_or_circular_chain_of_extends_ends(stack: Stack) -> None:
    links = "".join(f"  s{n}: {{extends: s{n + 1}}}\n" for n in range(100))
    stack.write("c.yaml", f"services:\n{links}  s100: {{labels: {{a: b}}}}\n")
    content = stack.read()
    assert content.services["s90"].labels == {"a": "b"}
    assert "s0" in content.refused
    assert "s99" not in content.refused
    stack.write("c.yaml", "services: {a: {extends: {file: d.yaml, service: a}}}")
    stack.write("d.yaml", "services: {a: {extends: {file: c.yaml, service: a}}}")
    assert stack.read().refused == {"a"}


def test_an_include_adds_the_services_of_another_project(stack: Stack) -> None:
    stack.write("c.yaml", "include:\n  - sub/inc.yaml\nservices:\n  web: {labels: {v: '$V'}}\n")
    stack.write(
        "sub/inc.yaml", "include: [deeper.yaml]\nservices:\n  db: {label_file: l, labels: {v: '$V', w: '$W'}}\n"
    )
    stack.write("sub/deeper.yaml", "services: {cache: {labels: {w: '$W'}}}")
    stack.write("sub/l", "l=1")
    stack.write("sub/.env", "V=sub\nW=sub")
    stack.write(".env", "V=top")
    services = stack.sound()
    assert {name: dict(service.labels) for name, service in services.items()} == {
        "web": {"v": "top"},
        "db": {"l": "1", "v": "top", "w": "sub"},
        "cache": {"w": "sub"},
    }


def test_the_long_form_of_include_names_files_directory_and_variables(stack: Stack) -> None:
    stack.write(
        "c.yaml",
        "include:\n  - path: [a/one.yaml, a/two.yaml]\n    project_directory: b\n    env_file: [a/x.env, a/y.env]\n",
    )
    stack.write("a/one.yaml", "services: {db: {labels: {x: $X, y: $Y}}}")
    stack.write("a/two.yaml", "services: {db: {label_file: l}}")
    stack.write("b/l", "l=b")
    stack.write("a/x.env", "X=1\nY=1")
    stack.write("a/y.env", "Y=2")
    assert stack.sound()["db"].labels == {"l": "b", "x": "1", "y": "2"}


def test_an_included_service_of_the_same_name_gives_way_with_a_warning(stack: Stack) -> None:
    stack.write("c.yaml", "include: [i.yaml]\nservices:\n  web: {labels: {a: own}}\n")
    stack.write("i.yaml", "services: {web: {labels: {a: theirs}}, db: {}}")
    content = stack.read()
    assert content.services["web"].labels == {"a": "own"}
    assert stack.problems() == [("warning", "i.yaml:1", "service web")]


@pytest.mark.parametrize(
    ("include", "reason"),
    [
        ("none.yaml", "none.yaml cannot be read"),
        ("c.yaml", "includes itself"),
        ("loop.yaml", "includes itself"),
        ("broken.yaml", "not YAML"),
        ("{path: i.yaml, env_file: none.env}", "none.env cannot be read"),
        ("{env_file: x}", "it names no file"),
    ],
)
def test_an_include_that_cannot_be_followed_breaks_the_project(stack: Stack, include: str, reason: str) -> None:
    stack.write("c.yaml", f"include:\n  - {include}\nservices: {{web: {{}}}}\n")
    stack.write("loop.yaml", "include: [loop.yaml]")
    stack.write("i.yaml", "services: {}")
    stack.write("broken.yaml", "a: [")
    content = stack.read()
    assert content.broken
    assert "web" in content.services
    assert reason in content.problems[0].reason


@pytest.mark.parametrize("remote", ["https://x.test/c.git", "oci://x/y", "git@x.test:y"])
def test_an_include_from_elsewhere_is_left_out_with_a_warning(stack: Stack, remote: str) -> None:
    stack.write("c.yaml", f"include: ['{remote}']\nservices: {{web: {{}}}}\n")
    assert stack.problems() == [("warning", "c.yaml:1", "include")]
    assert not stack.read().broken


def test_the_number_of_files_that_are_read_is_bounded(stack: Stack) -> None:
    names = range(MAX_REFERENCED_FILES + 10)
    for n in names:
        stack.write(f"l/{n}", "a=b")
    stack.write("c.yaml", "services:\n" + "".join(f"  s{n}: {{label_file: l/{n}}}\n" for n in names))
    content = stack.read()
    assert not content.broken
    assert 10 <= len(content.refused) <= 20
    assert "more than 500 files are named" in content.problems[0].reason


def test_profiles_decide_which_services_take_part(stack: Stack) -> None:
    stack.write("c.yaml", "services: {a: {}, b: {profiles: [x, y]}, c: {profiles: [z]}}")
    active = {
        profiles: [name for name, service in stack.sound(COMPOSE_PROFILES=profiles).items() if service.is_active]
        for profiles in ("", "x", "z, y", "*")
    }
    assert active == {"": ["a"], "x": ["a", "b"], "z, y": ["a", "b", "c"], "*": ["a", "b", "c"]}
    stack.write(".env", "COMPOSE_PROFILES=z")
    assert stack.sound()["c"].is_active


@pytest.mark.parametrize(
    "text",
    [
        "---\nservices: {a: {labels: {x: '1'}}}\n---\nservices: {a: {labels: {y: '2'}}}\n",
        "services: {a: {labels: {x: '1'}}}\n---\n---\nservices: {a: {labels: [y=2]}}\n---\n",
        "a: {image: i, labels: {x: '1'}}\n---\na: {image: i, labels: {y: '2'}}\n",
    ],
)
def test_several_documents_are_merged(stack: Stack, text: str) -> None:
    stack.write("c.yaml", text)
    assert stack.sound()["a"].labels == {"x": "1", "y": "2"}


@pytest.mark.parametrize(
    "text",
    ["volumes: {v: {}}", "networks:\n  n:\n", "include: [i.yaml]", "secrets: {s: {file: x}}\nversion: '3.8'\n"],
)
def test_a_file_may_have_no_services_of_its_own(stack: Stack, text: str) -> None:
    stack.write("c.yaml", "services: {web: {}}")
    stack.write("d.yaml", text)
    stack.write("i.yaml", "services: {db: {}}")
    assert "web" in stack.sound("c.yaml", "d.yaml")


def test_relative_paths_of_every_file_begin_in_the_directory_of_the_first(stack: Stack) -> None:
    stack.write("c.yaml", "services: {web: {labels: {a: $A, b: $B}}}")
    stack.write("sub/d.yaml", "services: {web: {label_file: l, labels: {c: $A$B}}}")
    stack.write("l", "l=top")
    stack.write(".env", "A=top")
    stack.write("sub/.env", "A=sub\nB=sub")
    content = stack.read("c.yaml", "sub/d.yaml")
    assert content.services["web"].labels == {"a": "top", "b": "", "c": "topsub", "l": "top"}


def test_reserved_labels_are_refused_from_a_file(stack: Stack) -> None:
    labels = ["mesh.service=a/b", "aliyun.stack=x", "mesh.digest=y", "mesh.runs.shop.db=true", "mesh.routing.weight=2"]
    stack.write("c.yaml", f"services: {{web: {{labels: {labels}}}}}")
    content = stack.read()
    assert dict(content.services["web"].labels) == {"mesh.routing.weight": "2"}
    assert [problem.code for problem in content.problems] == [Code.RESERVED_LABEL] * 4


def test_labels_of_the_mesh_below_deploy_are_reported(stack: Stack) -> None:
    stack.write(
        "c.yaml", "services:\n  a:\n    deploy:\n      labels:\n        mesh.routing.port_80: a\n        other: b\n"
    )
    stack.write("d.yaml", "services: {a: {deploy: {labels: [aliyun.scale=2]}}}")
    assert stack.problems("c.yaml", "d.yaml") == [
        ("warning", "c.yaml:5", "service a, deploy.labels, label mesh.routing.port_80"),
        ("warning", "d.yaml:1", "service a, deploy.labels, label aliyun.scale"),
    ]


def test_unknown_keys_are_reported_and_their_number_is_bounded(stack: Stack) -> None:
    stack.write("c.yaml", "servcies: {}\nservices: {a: {imgae: x, x-mine: 1}}\n")
    assert stack.problems() == [
        ("warning", "c.yaml:1", "key servcies"),
        ("warning", "c.yaml:2", "service a, key imgae"),
    ]
    stack.write("c.yaml", "services: {a: {" + ", ".join(f"k{n}: 1" for n in range(20)) + "}}")
    assert len(stack.problems()) == 20
    first, second = (",\n".join(f"{each}{n}: 1" for n in range(500)) for each in "kl")
    stack.write("c.yaml", f"services: {{a: {{{first}}},\nb: {{{second}}}}}")
    *shown, rest = stack.read("c.yaml").problems
    assert len(shown) == 20
    assert (rest.code, str(rest.where).endswith("c.yaml:21")) == (Code.PROBLEMS_NOT_SHOWN, True)
    assert rest.reason.startswith("there are 980 more keys that do not exist")


def test_a_declaration_of_another_kind_refuses_its_service_alone(stack: Stack) -> None:
    stack.write("c.yaml", "services: {a: {ports: ['80']}, b: {labels: {x: '1'}}}")
    stack.write("d.yaml", "services: {a: {ports: {x: 1}}, b: {labels: {y: '2'}}}")
    content = stack.read("c.yaml", "d.yaml")
    assert (content.broken, set(content.refused)) == (False, {"a"})
    assert content.services["b"].labels == {"x": "1", "y": "2"}
    assert stack.problems("c.yaml", "d.yaml") == [("error", "d.yaml:1", "service a, ports")]
