"""The bounds of compose files and of what they name: what is longer is refused, in linear time."""

from pathlib import Path

import pytest

from mesh.cli.lint import check_files
from mesh.config.name_policy import NamePolicy
from mesh.model.codes import Code
from mesh.model.problem import Severity
from mesh.sources.compose.env_file import EnvFileError, parse_env_file
from mesh.sources.compose.environment import EnvironmentReader
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.interpolate import ExpansionError, interpolate
from mesh.sources.compose.limits import ComposeBudget, ComposeLimits
from mesh.sources.compose.model import ComposeFile
from mesh.sources.compose.parse import read_compose_file

SERVICE = "services:\n  web:\n    labels:\n"


def broken_for(text: str, limits: ComposeLimits, **env: str) -> str:
    """Why the file is broken."""
    read = read_compose_file(text, "compose.yaml", env, limits)
    assert read.broken
    (error,) = (problem for problem in read.problems if problem.severity is Severity.ERROR)
    assert error.code is Code.COMPOSE_NOT_YAML
    assert "or raise [source.compose]" in error.remedy
    return error.reason


@pytest.mark.parametrize(
    "text",
    [
        "x: [" + "a, " * 100 + "]\n",
        "x: &a [b]\ny: [" + "*a, " * 100 + "]\n",
        "".join(f"k{n}: v\n" for n in range(60)),
        "x: [" + "[], " * 100 + "]\n",
    ],
    ids=["texts", "aliases", "keys", "lists"],
)
def test_a_file_with_too_many_values_is_broken(text: str) -> None:
    limits = ComposeLimits(values=110)
    assert broken_for(text * 1 + "services: {a: {labels: [x]}}\n", ComposeLimits(values=100)) == (
        "it has more than 100 keys and values"
    )
    assert not read_compose_file("services: {a: {labels: [x]}}\n", "compose.yaml", {}, limits).broken


def test_a_file_of_exactly_as_many_values_is_read() -> None:
    text = "services: {a: {labels: [x]}}\n"  # the document, its key, the services, a, its value, labels, the list, x
    assert not read_compose_file(text, "compose.yaml", {}, ComposeLimits(values=8)).broken
    assert broken_for(text, ComposeLimits(values=7)) == "it has more than 7 keys and values"


LISTED = "x-all: &all [10.0.0.1, 10.0.0.2]\nservices: {a: {x-endpoints: *all}, b: {x-endpoints: *all}}\n"


def test_the_instances_of_a_project_have_a_bound() -> None:
    assert not read_compose_file(LISTED, "compose.yaml", {}, ComposeLimits(endpoints=4)).broken
    assert broken_for(LISTED, ComposeLimits(endpoints=3)) == "its services list more than 3 instances"


def test_several_files_have_one_bound_for_their_instances(tmp_path: Path) -> None:
    paths = [tmp_path / "compose.yaml", tmp_path / "more.yaml"]
    paths[0].write_text(LISTED)
    paths[1].write_text("services: {c: {x-endpoints: [10.0.0.3]}}\n")
    assert not load_compose_project(paths, {}, ComposeLimits(endpoints=5)).content.broken
    content = load_compose_project(paths, {}, ComposeLimits(endpoints=4)).content
    assert content.broken
    assert [problem.code for problem in content.problems] == [Code.COMPOSE_NOT_YAML]


def test_one_long_text_that_many_aliases_repeat_is_refused() -> None:
    text = f'x: &a "{"y" * 1000}"\n' + SERVICE + "".join(f"      mesh.k{n}: *a\n" for n in range(100))
    limits = ComposeLimits(file_bytes=10_000)
    assert "more than 20000 characters with aliases and variables replaced" in broken_for(text, limits)


def test_variables_that_make_long_texts_are_refused() -> None:
    text = SERVICE + f"      mesh.k: {'${A}' * 100}\n"
    reason = broken_for(text, ComposeLimits(file_bytes=10_000), A="y" * 1000)
    assert "more than 20000 characters with aliases and variables replaced" in reason
    many = SERVICE + "".join(f"      mesh.k{n}: ${{A}}\n" for n in range(100))
    assert "more than 20000 characters" in broken_for(many, ComposeLimits(file_bytes=10_000), A="y" * 1000)


@pytest.mark.parametrize("text", ["$A$A$A", "${A}${A}${A}", "${B:-${A}${A}${A}}", "xyz$A$A", "${B?$A$A$A}"])
def test_an_expansion_has_a_bound(text: str) -> None:
    with pytest.raises(ExpansionError):
        interpolate(text, {"A": "y" * 10}, 22)


def test_problems_beyond_the_limit_are_counted_and_errors_are_kept_first() -> None:
    warnings = "".join(f"      mesh.w{n}: $UNSET{n}\n" for n in range(20))
    errors = "".join(f"      mesh.e{n}: [a]\n" for n in range(5))
    read = read_compose_file(SERVICE + warnings + errors, "compose.yaml", {}, ComposeLimits(problems=8))
    *kept, rest = read.problems
    assert [problem.severity for problem in kept] == [Severity.WARNING] * 3 + [Severity.ERROR] * 5
    assert [problem.where for problem in kept[:3]] == [f"compose.yaml:{n}" for n in (4, 5, 6)]
    assert (rest.code, rest.severity, rest.reason) == (
        Code.PROBLEMS_NOT_SHOWN,
        Severity.WARNING,
        "it has 17 more problems, which are not shown",
    )
    few = read_compose_file(SERVICE + errors * 1, "compose.yaml", {}, ComposeLimits(problems=5))
    assert [problem.code for problem in few.problems] == [Code.COMPOSE_STRUCTURE] * 5
    more = read_compose_file(SERVICE + errors, "compose.yaml", {}, ComposeLimits(problems=4))
    assert more.problems[-1].severity is Severity.ERROR
    assert more.problems[-1].reason.startswith("it has 1 more")


def test_the_error_that_breaks_a_file_is_shown_beside_any_number_of_problems() -> None:
    text = "a: 1\na: 2\nb: 1\nb: 2\nservices: 5\n"
    read = read_compose_file(text, "compose.yaml", {}, ComposeLimits(problems=1))
    assert [problem.reason for problem in read.problems][-2:] == [
        "services is not a mapping",
        "it has 1 more problems, which are not shown",
    ]


def test_a_dotenv_file_that_doubles_a_text_again_and_again_is_refused(tmp_path: Path) -> None:
    doubling = "".join(f"A{n + 1}=${{A{n}}}${{A{n}}}\n" for n in range(60))
    (tmp_path / ".env").write_text("A0=xxxx\n" + doubling)
    (tmp_path / "compose.yaml").write_text(SERVICE + "      mesh.k: $A1\n")
    content = load_compose_project([tmp_path / "compose.yaml"], {}).content
    assert content.broken
    (problem,) = content.problems
    assert problem.where == str(tmp_path / "compose.yaml")
    assert problem.reason.startswith(f"{tmp_path}/.env:")
    assert "its values have more than 8388608 characters" in problem.reason


def test_a_dotenv_file_with_too_many_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n" * 60)
    (tmp_path / "compose.yaml").write_text(SERVICE + "      mesh.k: $A\n")
    assert not load(tmp_path, ComposeLimits(values=60)).broken
    (problem,) = load(tmp_path, ComposeLimits(values=59)).problems
    assert problem.reason == f"{tmp_path}/.env:60: there are more than 59 variables"


def load(directory: Path, limits: ComposeLimits) -> ComposeFile:
    return load_compose_project([directory / "compose.yaml"], {}, limits).content


@pytest.mark.parametrize(
    "value",
    [
        "${" * 500_000,
        "${:" * 500_000 + "}",
        "${" * 500_000 + ":x}",
        "${a:-" * 500_000,
        '"' + "a" * (3 << 20),
        "'\\" * 500_000,
    ],
    ids=["openings", "colons", "one end", "defaults", "a text without an end", "escapes"],
)
def test_openings_without_an_end_are_refused_in_linear_time(value: str) -> None:
    with pytest.raises(EnvFileError):
        parse_env_file(f"A={value}", {})


def test_a_quoted_value_of_megabytes_is_read() -> None:
    text = "a" * (3 << 20)
    assert parse_env_file(f'A="{text}"', {})[0] == {"A": text}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("services: {web: {extends: {file: named, service: web}}}", "services: {web: {image: %s}}"),
        ("include: [named]\nservices: {}", "services: {web: {image: %s}}"),
        ("services: {web: {label_file: named}}", "A=%s"),
    ],
    ids=["extends", "include", "label_file"],
)
def test_a_file_that_is_named_has_the_same_bounds(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    (tmp_path / "named").write_text(named % ("x" * 5000))
    assert load(tmp_path, ComposeLimits(file_bytes=6000)).problems == ()
    (problem,) = load(tmp_path, ComposeLimits(file_bytes=4096)).problems
    assert "it has more than 4096 bytes" in problem.reason


@pytest.mark.parametrize(
    ("text", "named", "reason"),
    [
        ("services: {web: {extends: {file: named, service: web}}}", "services: {web: {}}\nx: [%s]", "keys and values"),
        ("include: [named]\nservices: {}", "services: {web: {}}\nx: [%s]", "keys and values"),
        ("services: {web: {label_file: named}}", "%s", "variables"),
    ],
    ids=["extends", "include", "label_file"],
)
def test_a_file_that_is_named_has_a_bounded_number_of_values(
    tmp_path: Path, text: str, named: str, reason: str
) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    many = "A=1\n" if reason == "variables" else "a, "
    (tmp_path / "named").write_text(named % (many * 50))
    assert load(tmp_path, ComposeLimits(values=100)).problems == ()
    (tmp_path / "named").write_text(named % (many * 101))
    (problem,) = load(tmp_path, ComposeLimits(values=100)).problems
    assert f"more than 100 {reason}" in problem.reason


def test_services_that_extend_one_with_many_keys_are_refused() -> None:
    many = "".join(f"    x-{n}: a\n" for n in range(300))
    text = "services:\n  base:\n" + many + "".join(f"  s{n}: {{extends: base}}\n" for n in range(100))
    assert "expand to more than 19200 entries" in broken_for(text, ComposeLimits(values=1200))


def test_small_files_that_stand_for_many_entries_are_refused_together(tmp_path: Path) -> None:
    laughs = "x: &a [b, c, d, e]\ny: {u: &b [*a, *a, *a, *a], v: &c [*b, *b], z: [*c, *c]}\nservices: {web: {image: a}}"
    (tmp_path / "compose.yaml").write_text(f"include: [{', '.join(f'f{n}' for n in range(100))}]\nservices: {{}}")
    for n in range(100):
        (tmp_path / f"f{n}").write_text(laughs.replace("web", f"w{n}"))
    content = load(tmp_path, ComposeLimits(values=250))
    assert content.broken
    (problem,) = content.problems
    assert problem.reason == "aliases and references expand to more than 2000 entries"


def test_problems_of_named_and_several_files_have_one_limit(tmp_path: Path) -> None:
    wrong = "".join(f"  {{0}}{n}: {{{{extends: {{{{file: none, service: a}}}}, labels: [a, a]}}}}\n" for n in range(20))
    (tmp_path / "compose.yaml").write_text("include: [more]\nservices:\n" + wrong.format("a"))
    (tmp_path / "more").write_text("services:\n" + wrong.format("b"))
    (tmp_path / "last").write_text("services:\n" + wrong.format("c"))
    files = [tmp_path / "compose.yaml", tmp_path / "last"]
    content = load_compose_project(files, {}, ComposeLimits(problems=7)).content
    assert len(content.problems) == 8
    assert content.problems[-1].code is Code.PROBLEMS_NOT_SHOWN
    assert content.problems[-1].reason == "it has 113 more problems, which are not shown"


def test_environments_of_many_services_have_one_bound(tmp_path: Path) -> None:
    services = "".join(f"  s{n}: {{env_file: e}}\n" for n in range(200))
    (tmp_path / "compose.yaml").write_text("services:\n" + services)
    (tmp_path / "e").write_text("".join(f"A{n}=1\n" for n in range(100)))
    limits = ComposeLimits(values=900)
    project = load_compose_project([tmp_path / "compose.yaml"], {}, limits)
    budget = ComposeBudget(limits)
    reader = EnvironmentReader(project.files, budget)
    read = [reader.read(service) for service in project.content.services.values()]
    assert read[0] == ({f"A{n}": "1" for n in range(100)}, ())
    assert "expand to more than 3600 entries" in read[-1][1][0].reason
    (last,) = check_files([tmp_path / "compose.yaml"], {}, policy=NamePolicy("mesh.internal"), limits=limits)
    assert "expand to more than 14400 entries" in last.reason


def test_a_project_has_room_for_each_of_its_files(tmp_path: Path) -> None:
    text = "x: [" + "a, " * 80 + "]\n" + SERVICE + f"      mesh.k%d: {'y' * 3000}\n"
    files = [tmp_path / f"{n}.yaml" for n in range(5)]
    for n, file in enumerate(files):
        file.write_text(text % n)
    content = load_compose_project(files, {}, ComposeLimits(file_bytes=4096, values=100)).content
    assert not content.broken
    assert len(content.services["web"].labels) == 5
