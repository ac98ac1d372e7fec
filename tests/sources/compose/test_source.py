"""Compose files on disk: which instances are reported, when, and when the list is frozen."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.model.problem import Problem
from mesh.model.service import Instance
from mesh.sources import Source
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.limits import ComposeLimits
from mesh.sources.compose.source import LARGE, ComposeSource

ONE = "services:\n  web:\n    labels:\n      mesh.routing.port_80: web\n    x-endpoints:\n      - 10.0.0.1:80\n"
TWO = ONE + "      - 10.0.0.2:80\n"

Told = tuple[tuple[Instance, ...], tuple[Problem, ...]]


def source(*files: Path, interval: float = 0.01, **env: str) -> ComposeSource:
    return ComposeSource(files, env=env, interval=interval, rest=0.01)


def ids(told: Told) -> list[str]:
    return [instance.id for instance in told[0]]


async def following(watched: AsyncIterator[Told]) -> Told:
    async with asyncio.timeout(5):
        return await anext(watched)


async def nothing_from(watched: asyncio.Future[Told], compose: ComposeSource, trouble: str) -> None:
    """The watch goes on without a word, and the source says why."""
    async with asyncio.timeout(5):
        while trouble not in str(compose.trouble):
            await asyncio.sleep(0.005)
    assert not watched.done()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "Demo App"
    directory.mkdir()
    file = directory / "compose.yaml"
    file.write_text(ONE)
    return file


def test_it_is_a_source(file: Path) -> None:
    as_source: Source = source(file)
    assert as_source.trouble is None


def test_instances_have_owner_address_port_and_labels(file: Path) -> None:
    file.write_text(TWO + "      - fd00::1\n  idle: {labels: {mesh.routing.port_1: x}}\n")
    instances, problems = source(file).read()
    assert problems == ()
    assert instances == tuple(
        Instance(f"demoapp/web/{written}", "demoapp/web", address, {"mesh.routing.port_80": "web"}, port)
        for written, address, port in [
            ("10.0.0.1:80", "10.0.0.1", 80),
            ("10.0.0.2:80", "10.0.0.2", 80),
            ("fd00::1", "fd00::1", None),
        ]
    )


def test_instances_are_in_order_of_their_ids(file: Path) -> None:
    file.write_text("services: {b: {x-endpoints: [10.0.0.2, 10.0.0.1]}, a: {x-endpoints: [10.0.0.3]}}")
    assert ids(source(file).read()) == ["demoapp/a/10.0.0.3", "demoapp/b/10.0.0.1", "demoapp/b/10.0.0.2"]


def test_the_name_of_the_last_file_names_the_project_and_later_endpoints_replace(file: Path) -> None:
    override = file.parent / "override.yaml"
    override.write_text("name: shop\nservices: {web: {x-endpoints: [10.0.0.9]}}")
    assert ids(source(file, override).read()) == ["shop/web/10.0.0.9"]


def test_variables_come_from_the_environment_and_below_it_from_the_env_file(file: Path) -> None:
    file.write_text('services: {web: {x-endpoints: ["$A", "$B", "$C"]}}')
    file.with_name(".env").write_text("A=10.0.0.1\nB=10.0.0.2\nC=10.0.${NET}.3\nLONELY\n")
    assert ids(source(file, B="10.9.9.9", NET="7").read()) == [
        f"demoapp/web/{a}" for a in ("10.0.0.1", "10.0.7.3", "10.9.9.9")
    ]


def test_labels_and_instances_are_located(file: Path) -> None:
    compose = source(file)
    (instance,), _ = compose.read()
    assert compose.locate(instance, "mesh.routing.port_80") == f"{file}:4"
    assert compose.locate(instance, "mesh.gone") == f"{file}:2"
    assert compose.locate(instance, None) == f"{file}:6"
    assert compose.locate(Instance("x", "x/y", "10.0.0.1", {}), None) == str(file)


def test_an_invalid_entry_is_reported_beside_the_valid_ones(file: Path) -> None:
    file.write_text(ONE + "      - nonsense\n")
    compose = source(file)
    instances, (problem,) = compose.read()
    assert [i.id for i in instances] == ["demoapp/web/10.0.0.1:80"]
    assert problem.where == f"{file}:7"
    assert compose.trouble is None


@pytest.mark.parametrize(
    ("content", "trouble"),
    [(b"a: [", ":1:"), (b"services: {a: \xff}", "not UTF-8 at byte 14"), (None, "No such file"), (b"", "it is empty")],
)
def test_an_unreadable_file_is_reported_in_one_line(file: Path, content: bytes | None, trouble: str) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    compose = source(file)
    instances, problems = compose.read()
    assert instances == ()
    assert compose.trouble == problems[0].coded
    assert trouble in compose.trouble.text
    assert str(file) in compose.trouble.text
    assert compose.trouble.text.isprintable()


def test_a_byte_order_mark_is_no_part_of_the_text(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + ONE.encode())
    assert load_compose_project([file], {}).content.services.keys() == {"web"}


def test_an_env_file_that_cannot_be_read_breaks_the_file(file: Path) -> None:
    file.with_name(".env").mkdir()
    assert load_compose_project([file], {}).content.broken


async def test_the_list_is_reported_at_once_and_after_each_change(file: Path) -> None:
    async with aclosing(source(file).watch()) as watched:
        assert ids(await following(watched)) == ["demoapp/web/10.0.0.1:80"]
        file.write_text(TWO)
        assert ids(await following(watched)) == ["demoapp/web/10.0.0.1:80", "demoapp/web/10.0.0.2:80"]
        file.write_text("services: {}")
        assert await following(watched) == ((), ())


async def test_a_changed_env_file_is_a_change(file: Path) -> None:
    file.write_text('services: {web: {x-endpoints: ["${A:-10.0.0.1}"]}}')
    async with aclosing(source(file).watch()) as watched:
        assert ids(await following(watched)) == ["demoapp/web/10.0.0.1"]
        file.with_name(".env").write_text("A=10.0.0.2")
        assert ids(await following(watched)) == ["demoapp/web/10.0.0.2"]


async def test_a_broken_file_freezes_the_list_until_it_is_fixed(file: Path) -> None:
    compose = source(file)
    async with aclosing(compose.watch()) as watched, asyncio.TaskGroup() as tasks:
        (instance,), _ = await following(watched)
        again = tasks.create_task(following(watched))
        file.write_text(ONE + "  web: twice\n")
        await nothing_from(again, compose, '"web" is on line 2 and again on line 7')
        assert compose.locate(instance, None) == f"{file}:6"
        file.unlink()
        await nothing_from(again, compose, "No such file")
        file.write_text(TWO)
        assert ids(await again) == ["demoapp/web/10.0.0.1:80", "demoapp/web/10.0.0.2:80"]
        assert compose.trouble is None


async def test_a_file_broken_from_the_start_reports_no_list_until_it_is_fixed(file: Path) -> None:
    file.write_text("")
    compose = source(file)
    async with aclosing(compose.watch()) as watched, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(following(watched))
        await nothing_from(first, compose, "it is empty")
        file.write_text(ONE)
        assert ids(await first) == ["demoapp/web/10.0.0.1:80"]


async def test_one_broken_file_of_several_freezes_all(file: Path) -> None:
    other = file.with_name("other.yaml")
    compose = source(file, other)
    assert compose.read()[0] == ()
    assert str(other) in str(compose.trouble)


async def test_touch_reads_the_files_at_once(file: Path) -> None:
    compose = source(file, interval=3600)
    async with aclosing(compose.watch()) as watched:
        await following(watched)
        before = file.stat()
        file.write_text(ONE.replace("10.0.0.1", "10.0.0.7"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as large and as old as it was: not seen by itself
        compose.touch()
        assert ids(await following(watched)) == ["demoapp/web/10.0.0.7:80"]


async def test_an_equal_list_is_not_reported_again(file: Path) -> None:
    compose = source(file, interval=3600)
    async with aclosing(compose.watch()) as watched:
        await following(watched)
        compose.touch()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(watched)


async def test_a_file_is_read_only_after_writes_have_settled(file: Path) -> None:
    compose = ComposeSource([file], env={}, interval=0.01, rest=1.5)
    async with aclosing(compose.watch()) as watched, asyncio.TaskGroup() as tasks:
        await following(watched)
        again = tasks.create_task(following(watched))
        with file.open("a") as writing:
            for last in range(2, 32):  # an editor that takes 0.6 s; what it has written so far is always sound
                writing.write(f"      - 10.0.0.{last}:80\n")
                writing.flush()
                await asyncio.sleep(0.02)
        assert len(ids(await again)) == 31


async def test_a_service_that_cannot_be_read_keeps_its_instances_and_the_others_go_on(file: Path) -> None:
    compose = source(file)
    async with aclosing(compose.watch()) as watched:
        assert ids(await following(watched)) == ["demoapp/web/10.0.0.1:80"]
        file.write_text(ONE + "    extends: {file: base.yaml, service: x}\n  db:\n    x-endpoints: [10.0.0.9]\n")
        told = await following(watched)
        assert ids(told) == ["demoapp/db/10.0.0.9", "demoapp/web/10.0.0.1:80"]
        assert [str(problem.subject) for problem in told[1]] == ["service web, extends"]
        assert compose.trouble is None
        file.with_name("base.yaml").write_text("services: {x: {x-endpoints: [10.0.0.7]}}")
        assert await following(watched) == ((told[0][0], told[0][1]), ())
        file.write_text("services: {db: {x-endpoints: [10.0.0.9]}}")
        assert ids(await following(watched)) == ["demoapp/db/10.0.0.9"]


async def test_a_changed_file_that_is_named_is_a_change(file: Path) -> None:
    base = file.with_name("base.yaml")
    base.write_text("services: {x: {x-endpoints: [10.0.0.7]}}")
    file.write_text("services: {web: {extends: {file: base.yaml, service: x}, label_file: l}}")
    file.with_name("l").write_text("a=1")
    async with aclosing(source(file).watch()) as watched:
        assert ids(await following(watched)) == ["demoapp/web/10.0.0.7"]
        base.write_text("services: {x: {x-endpoints: [10.0.0.70]}}")
        assert ids(await following(watched)) == ["demoapp/web/10.0.0.70"]
        file.with_name("l").write_text("a=twenty")
        (instance,), _ = await following(watched)
        assert instance.labels == {"a": "twenty"}


async def test_what_compose_takes_never_freezes_the_list(file: Path) -> None:
    file.write_text(
        "include: ['https://x.test/y.git']\nservices:\n  bad: 5\n  \"a b\": {}\n  web:\n    x-endpoints: [10.0.0.1]\n"
        "    extends: nothing\n  db: {x-endpoints: [10.0.0.2], ports: !reset []}\n---\n"
    )
    compose = source(file)
    instances, problems = compose.read()
    assert ([instance.id for instance in instances], compose.trouble) == (["demoapp/db/10.0.0.2"], None)
    assert len(problems) == 4


async def test_a_service_of_another_profile_has_no_instances(file: Path) -> None:
    file.write_text("services: {web: {x-endpoints: [10.0.0.1], profiles: [x]}}")
    assert ids(source(file).read()) == []
    assert ids(source(file, COMPOSE_PROFILES="x").read()) == ["demoapp/web/10.0.0.1"]


def test_memory_of_large_files_is_given_back_and_small_ones_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[bool] = []
    monkeypatch.setattr("mesh.util.free_memory.release_free_memory", lambda: released.append(True))
    file = tmp_path / "compose.yaml"
    file.write_text("services: {}\n")
    ComposeSource([file], env={}).read()
    assert released == []
    file.write_text("services: {}\n" + "#" * LARGE)
    source = ComposeSource([file], env={})
    source.read()
    assert released == [True]
    file.write_text("services: {}\n")
    source.read()  # what the large one left behind
    assert released == [True] * 2
    source.read()
    assert released == [True] * 2


async def test_what_has_not_changed_is_kept_and_not_had_twice(file: Path) -> None:
    file.write_text(ONE + "  db:\n    x-endpoints: [10.0.0.2]\n")
    compose = source(file)
    before, problems = compose.read()
    file.write_text("# moved\n" + ONE + "  db:\n    x-endpoints: [10.0.0.2]\n")
    same = compose.read()
    assert same[0] is before
    assert same[1] is problems
    assert compose.locate(before[1], None) == f"{file}:7"

    file.write_text(ONE + "  db:\n    x-endpoints: [10.0.0.3]\n")
    changed, _ = compose.read()
    assert [each is old for each, old in zip(changed, before, strict=True)] == [False, True]


def test_the_bounds_of_the_source_are_those_that_it_was_given(file: Path) -> None:
    file.write_text(ONE + "    env_file: e\n    x-more: [" + "a, " * 90 + "]\n")
    narrow = ComposeSource([file], env={}, limits=ComposeLimits(values=100))
    assert narrow.read()[0] == ()
    assert narrow.trouble is not None
    assert "more than 100 keys and values" in narrow.trouble.text
    wide = ComposeSource([file], env={}, limits=ComposeLimits(values=200))
    assert ids(wide.read()) == ["demoapp/web/10.0.0.1:80"]
