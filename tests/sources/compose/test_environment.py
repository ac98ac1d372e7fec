"""The environment of a service: its files below its entries, and no value in any message."""

from pathlib import Path

import pytest

from mesh.model.problem import Problem
from mesh.sources.compose.environment import read_environment
from mesh.sources.compose.files import load_compose_project

ENV = {"OUTSIDE": "outside", "V": "v"}


def environment(directory: Path, *services: str, **files: str) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """What the service `web` has, of several files, each given as what is below its name."""
    for name, text in files.items():
        (directory / f"{name}.env").write_text(text)
    paths = []
    for number, text in enumerate(services):
        paths.append(directory / f"{number}.yaml")
        paths[-1].write_text(f"services:\n  web: {{{text}}}\n")
    project = load_compose_project(paths, ENV)
    assert project.content.problems == ()
    return read_environment(project.content.services["web"], project.files)


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        (
            ["environment: {A: 1, B: '$V', C: null, OUTSIDE: null, E: ''}"],
            {"A": "1", "B": "v", "OUTSIDE": "outside", "E": ""},
        ),
        (["environment: [A=1, 'B=$V=x', C, OUTSIDE]"], {"A": "1", "B": "v=x", "OUTSIDE": "outside"}),
        (["environment: {A: '1', B: '2'}", "environment: [B=3]"], {"A": "1", "B": "3"}),
        (["environment: {A: '1', B: '2'}", "environment: {A: !reset null}"], {"B": "2"}),
        (["environment: {A: '1'}", "environment: !override {B: '2'}"], {"B": "2"}),
        (["env_file: one.env"], {"A": "one", "B": "one-v"}),
        (["env_file: [one.env, two.env]"], {"A": "two", "B": "one-v"}),
        (["env_file: one.env", "env_file: two.env, environment: {B: own}"], {"A": "two", "B": "own"}),
        (["env_file: one.env, environment: {A: null}"], {"B": "one-v"}),
        (["env_file: [{path: none.env, required: false}]"], {}),
        (["env_file: [{path: one.env, format: raw}]"], {"A": "one", "B": "$A-$V"}),
    ],
)
def test_the_environment_is_that_of_the_specification(
    tmp_path: Path, services: list[str], expected: dict[str, str]
) -> None:
    assert environment(tmp_path, *services, one="A=one\nB=$A-$V\n", two="A=two") == (expected, ())


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ("env_file: none.env", "none.env cannot be read"),
        ("env_file: bad.env", "bad.env:2: the quoted value of PASSWORD has no end"),
        ("env_file: [{format: raw}]", "it names no file"),
        ("env_file: [{path: ., required: false}]", "cannot be read"),
        ("environment: ['PASSWORD=${NONE:?}hunter2']", "variable NONE is required"),
    ],
)
def test_what_is_wrong_is_said_without_the_values(tmp_path: Path, service: str, reason: str) -> None:
    found, (problem,) = environment(tmp_path, service, bad='A=1\nPASSWORD="hunter2')
    assert found == {}
    assert reason in problem.reason
    assert "hunter2" not in str(problem)
    assert problem.where == f"{tmp_path}/0.yaml:2"
