"""The version of the engine's API: engines that refuse older or newer ones, are upgraded, or tell nonsense."""

from pathlib import Path

import pytest

from mesh.sources.docker.client import open_client
from mesh.sources.docker.engine import DockerEngine
from mesh.sources.docker.source import DockerSource
from mesh.sources.docker.versions import (
    NEWEST,
    OLDEST,
    ApiRefusedError,
    ApiVersion,
    choose_api_version,
    parse_api_version,
)
from tests.sources.docker.fake_engine import ID, NAME, FakeEngine
from tests.system.docker.test_source import RULES, trouble, watching

NONSENSE = [
    "",
    "1",
    "1.",
    ".41",
    "1.41.2",
    "1.41\r\nX: y",
    "1.41 ",
    "-1.41",
    "1.-41",
    "1e3.41",
    "\u0661.\u0664\u0661",
    "9" * 5000 + ".1",
    "v",
    "1.41/../../info",
    None,
    1.41,
    141,
    True,
    [],
    ["1.41"],
    {"1": 41},
]


@pytest.mark.parametrize("text", NONSENSE, ids=repr)
def test_nonsense_is_no_version(text: object) -> None:
    assert parse_api_version(text) is None


@pytest.mark.parametrize(
    ("oldest", "newest", "used"),
    [
        ("1.12", "1.41", "1.41"),  # Docker 20.10
        ("1.24", "1.41", "1.41"),  # Podman 4
        ("1.24", "1.48", "1.48"),  # Docker 28
        ("1.44", "1.52", "1.52"),  # Docker 29
        ("1.44", "1.44", "1.44"),
        (str(NEWEST), "1.99", str(NEWEST)),
        ("1.24", "1.999", str(NEWEST)),
        ("1.24", "2.0", str(NEWEST)),
        (None, "1.45", "1.45"),
    ],
)
def test_the_newest_version_that_both_know(oldest: str | None, newest: str, used: str) -> None:
    told = parse_api_version(newest)
    assert told is not None
    assert str(choose_api_version(told, parse_api_version(oldest))) == used


@pytest.mark.parametrize(
    ("oldest", "newest", "remedy"),
    [
        ("1.12", "1.40", "update the engine"),
        (None, "1.9", "update the engine"),
        ("1.999", "1.1000", "update vipmesh"),
        ("2.0", "2.1", "update vipmesh"),
        ("1.44", "1.41", "update vipmesh"),  # contradicts itself
    ],
)
def test_no_version_that_both_know(oldest: str | None, newest: str, remedy: str) -> None:
    told = parse_api_version(newest)
    assert told is not None
    with pytest.raises(ApiRefusedError, match=f"and vipmesh {OLDEST} to {NEWEST}; {remedy}"):
        choose_api_version(told, parse_api_version(oldest))


@pytest.mark.parametrize(
    ("oldest", "newest"),
    [("1.24", "1.41"), ("1.44", "1.52"), ("1.44", "1.44"), ("1.41", "1.41"), ("1.24", "1.99"), (str(NEWEST), "1.99")],
)
async def test_an_engine_that_refuses_other_versions_is_followed(tmp_path: Path, oldest: str, newest: str) -> None:
    fake = FakeEngine(oldest, newest)
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES)
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {NAME}, 10)
            assert source.trouble is None
            fake.run = "2026-11-30T12:00:00Z"
            fake.tell("die")
            fake.tell("start")
            await seen.until(lambda now: bool(now) and now[NAME].run == fake.run, 10)
    assert set(fake.asked) == {str(min(NEWEST, ApiVersion(1, int(newest[2:]))))}


async def test_an_engine_that_is_upgraded_while_the_daemon_runs_is_followed(tmp_path: Path) -> None:
    fake = FakeEngine("1.24", "1.41")
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES)
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {NAME}, 10)
            fake.restart(oldest="1.44", newest="1.52")
            fake.run = "2026-11-30T12:00:00Z"
            await seen.until(lambda now: now[NAME].run == fake.run, 10)
            await trouble(source, None)
            assert fake.asked[-1] == "1.52"


async def test_an_engine_that_is_upgraded_behind_a_proxy_that_keeps_the_stream_is_followed(tmp_path: Path) -> None:
    fake = FakeEngine("1.24", "1.41")
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES)
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {NAME}, 10)
            fake.oldest, fake.newest = "1.44", "1.52"
            fake.told, fake.header = {"ApiVersion": "1.52", "MinAPIVersion": "1.44"}, "1.52"
            fake.run = "2026-11-30T12:00:00Z"
            source.touch()
            await seen.until(lambda now: now[NAME].run == fake.run, 10)
            await trouble(source, None)


@pytest.mark.parametrize(("oldest", "newest"), [("1.12", "1.40"), ("1.999", "1.1000")])
async def test_an_engine_without_a_common_version_is_reported(tmp_path: Path, oldest: str, newest: str) -> None:
    async with FakeEngine(oldest, newest).listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES)
        async with watching(source) as seen:
            await trouble(source, f"it speaks API {oldest} to {newest}, and vipmesh {OLDEST} to {NEWEST}; update")
            assert seen.lists == 0


@pytest.mark.parametrize("newest", NONSENSE, ids=repr)
@pytest.mark.parametrize("oldest", ["1.24", None, "nonsense", [1]], ids=repr)
async def test_nonsense_in_the_description_leaves_the_header(tmp_path: Path, newest: object, oldest: object) -> None:
    fake = FakeEngine("1.24", "1.43")
    fake.told = {"ApiVersion": newest, "MinAPIVersion": oldest}
    async with fake.listening(tmp_path / "docker.sock") as url, open_client(url) as docker:
        assert docker.api_version == "v1.43"


@pytest.mark.parametrize("header", ["", "1", "9" * 4000 + ".1", "1.41/../info", "\xff", None], ids=repr)
async def test_nonsense_everywhere_is_reported(tmp_path: Path, header: str | None) -> None:
    fake = FakeEngine()
    fake.told, fake.header = None, header
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES)
        async with watching(source) as seen:
            await trouble(source, "it tells no version of its API")
            fake.header = "1.41"
            source.touch()
            await seen.until(lambda now: now.keys() == {NAME}, 10)


async def test_a_refusal_is_quoted(tmp_path: Path) -> None:
    fake = FakeEngine("1.44", "1.52")
    fake.told = {"ApiVersion": "1.43", "MinAPIVersion": "1.24"}  # a proxy of another engine answers
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES)
        async with watching(source):
            await trouble(source, "client version 1.43 is too old. Minimum supported API version is 1.44")


async def test_signals_use_a_version_that_the_engine_knows(tmp_path: Path) -> None:
    fake = FakeEngine("1.44", "1.52")
    async with fake.listening(tmp_path / "docker.sock") as url:
        engine = DockerEngine(url, DockerSource(url, RULES), lambda code, reason: AssertionError(reason))
        await engine.signal(ID, "SIGTERM")  # there is no such container
    assert set(fake.asked) == {"1.52"}
