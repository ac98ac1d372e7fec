"""Merging declarations: the examples of the specification, the resources that are unique, and properties."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.sources.compose.documents import read_documents
from mesh.sources.compose.limits import ComposeProblems
from mesh.sources.compose.merge import merge_files, plain_text
from mesh.sources.compose.tree import (
    RESET,
    ComposeLayers,
    ComposeList,
    ComposeMapping,
    ComposeNode,
    ComposeOrigin,
)

Plain = str | None | list["Plain"] | Mapping[str, "Plain"]


def plain(node: ComposeNode) -> Plain:
    """A tree as values; pairs that were declared several times as one mapping."""
    match node:
        case ComposeMapping():
            return {key: plain(entry.value) for key, entry in node.entries.items() if entry.value.tag != RESET}
        case ComposeList():
            return [plain(item) for item in node.items]
        case ComposeLayers():
            pairs: dict[str, Plain] = {}
            for layer in node.layers:
                if isinstance(layer, ComposeMapping):
                    for key, entry in layer.entries.items():
                        pairs.pop(key, None)
                        if entry.value.tag != RESET:
                            pairs[key] = plain(entry.value)
                elif isinstance(layer, ComposeList):
                    pairs |= {key: value for key, _, value in (plain_text(item).partition("=") for item in layer.items)}
            return pairs
        case _:
            return None if node.is_null else plain_text(node)


def tree(text: str, number: int = 1) -> ComposeMapping:
    return read_documents(text, ComposeOrigin(f"{number}.yaml", "", {"V": "v"}), ComposeProblems(100)).tree


def merged(*services: str) -> Plain:
    """The service `foo` of several files, each given as what is below its name."""
    trees = [tree("services:\n  foo:\n" + text, number) for number, text in enumerate(services, start=1)]
    conflicts: list[tuple[str, str]] = []
    result = plain(merge_files(trees, conflicts))
    assert conflicts == []
    assert isinstance(result, Mapping)
    found = result["services"]
    assert isinstance(found, Mapping)
    return found.get("foo")


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        # The specification's examples
        ("key1: a\nkey2: b", "key2: V\nkey3: c", {"key1": "a", "key2": "V", "key3": "c"}),
        ("dns: [1.1.1.1]", "dns: [8.8.8.8]", {"dns": ["1.1.1.1", "8.8.8.8"]}),
        ("command: [echo, foo]", "command: [echo, bar]", {"command": ["echo", "bar"]}),
        ("volumes: ['foo:/work']", "volumes: ['bar:/work']", {"volumes": ["bar:/work"]}),
        (
            "image: a\nports: ['8080:80']\nenvironment: {FOO: BAR}",
            "image: a\nports: !reset []\nenvironment: {FOO: !reset null}",
            {"image": "a", "environment": {}},
        ),
        (
            "image: a\nports: ['8080:80']",
            "ports: !override ['8443:443']",
            {"image": "a", "ports": ["8443:443"]},
        ),
        # Unique resources
        ("ports: ['80:80']", "ports: ['80:80/tcp', '81:80']", {"ports": ["80:80/tcp", "81:80"]}),
        (
            "ports: ['127.0.0.1:80:80', '53:53/udp']",
            "ports: ['80:80']",
            {"ports": ["127.0.0.1:80:80", "53:53/udp", "80:80"]},
        ),
        (
            "ports: ['80:80']",
            "ports: [{target: 80, published: '80'}]",
            {"ports": [{"target": "80", "published": "80"}]},
        ),
        (
            "volumes: [{type: bind, source: /a, target: /x}]",
            "volumes: [{type: bind, target: /x, read_only: true}]",
            {"volumes": [{"type": "bind", "source": "/a", "target": "/x", "read_only": "true"}]},
        ),
        ("secrets: [a, b]", "secrets: [{source: c, target: a}, b]", {"secrets": [{"source": "c", "target": "a"}, "b"]}),
        ("configs: [a]", "configs: [{source: b, target: /a}]", {"configs": [{"source": "b", "target": "/a"}]}),
        ("devices: ['/dev/a:/dev/x']", "devices: ['/dev/b:/dev/x:r']", {"devices": ["/dev/b:/dev/x:r"]}),
        ("expose: ['80']", "expose: [80, 81]", {"expose": ["80", "81"]}),
        # Pairs, names, one or several
        ("labels: {a: '1', b: '2'}", "labels: ['b=3', 'c=$V']", {"labels": {"a": "1", "b": "3", "c": "v"}}),
        ("environment: [A=1]", "environment: {A: 2}", {"environment": {"A": "2"}}),
        ("env_file: a.env", "env_file: [b.env, a.env]", {"env_file": ["a.env", "b.env"]}),
        ("tmpfs: /a", "tmpfs: /b", {"tmpfs": ["/a", "/b"]}),
        ("depends_on: [a]", "depends_on: {b: {condition: x}}", {"depends_on": {"a": None, "b": {"condition": "x"}}}),
        ("build: .", "build: {target: x}", {"build": {"context": ".", "target": "x"}}),
        (
            "healthcheck: {test: [CMD, a], retries: 2}",
            "healthcheck: {test: [CMD, b]}",
            {"healthcheck": {"test": ["CMD", "b"], "retries": "2"}},
        ),
        (
            "logging: {driver: a, options: {x: '1'}}",
            "logging: {driver: b, options: {y: '1'}}",
            {"logging": {"driver": "b", "options": {"y": "1"}}},
        ),
        (
            "logging: {driver: a, options: {x: '1'}}",
            "logging: {options: {y: '1'}}",
            {"logging": {"driver": "a", "options": {"x": "1", "y": "1"}}},
        ),
        ("x-endpoints: [10.0.0.1]", "x-endpoints: [10.0.0.2]", {"x-endpoints": ["10.0.0.2"]}),
        ("image: a", "image:", {"image": "a"}),
        ("ports:", "ports: ['1']", {"ports": ["1"]}),
        (
            "deploy: {replicas: 1, labels: {a: b}}",
            "deploy: {replicas: 2}",
            {"deploy": {"replicas": "2", "labels": {"a": "b"}}},
        ),
    ],
    ids=lambda value: value.replace("\n", " ") if isinstance(value, str) else "",
)
def test_a_later_file_is_merged_as_the_specification_says(base: str, over: str, expected: Plain) -> None:
    def indented(text: str) -> str:
        return "".join(f"    {line}\n" for line in text.splitlines())

    assert merged(indented(base), indented(over)) == expected


def test_a_service_that_is_reset_is_gone_and_may_come_back() -> None:
    assert merged("    image: a\n", "    !reset null\n") is None
    assert merged("    image: a\n", "    !reset null\n", "    user: b\n") == {"user": "b"}


def test_values_of_another_kind_are_conflicts_that_name_their_place() -> None:
    conflicts: list[tuple[str, str]] = []
    both = [tree("services:\n  a.b:\n    ports: ['1']\n    image: x"), tree("services:\n  a.b:\n    ports: {a: 1}", 2)]
    result = plain(merge_files(both, conflicts))
    assert conflicts == [("services\0a.b\0ports", "2.yaml:3")]
    assert result == {"services": {"a.b": {"ports": ["1"], "image": "x"}}}


LINES = (
    "image: a",
    "image: b",
    "ports: ['1:1']",
    "ports: ['2:2']",
    "labels: {a: x}",
    "labels: [a=y, b=z]",
    "command: c",
)
FILES = st.lists(
    st.lists(st.sampled_from(LINES), unique_by=lambda line: line.partition(":")[0]), min_size=1, max_size=4
)


def texts(files: list[list[str]]) -> list[str]:
    return ["".join(f"    {line}\n" for line in file) or "    {}\n" for file in files]


@given(FILES)
def test_a_file_merged_twice_is_as_merged_once(files: list[list[str]]) -> None:
    (text, *_) = texts(files)
    assert merged(text, text) == merged(text, text, text)


@given(FILES)
def test_files_are_merged_from_the_first_to_the_last(files: list[list[str]]) -> None:
    """Two trees merged before the rest are the same as all in turn."""
    trees = [tree("services:\n  foo:\n" + text) for text in texts(files)]
    conflicts: list[tuple[str, str]] = []
    whole = merge_files(trees, conflicts)
    tail = merge_files(trees[1:], conflicts) if len(trees) > 1 else None
    again = merge_files([trees[0], tail], conflicts) if tail is not None else trees[0]
    assert plain(whole) == plain(again)
    assert conflicts == []
