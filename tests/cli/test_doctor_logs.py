"""doctor: output that labels ask for and that cannot be read, and rotation that keeps too little of it."""

import os
from pathlib import Path

import pytest

from mesh.cli.doctor.facts import CollectedOutput, DoctorFacts
from mesh.cli.doctor.log_facts import collected_outputs, kept_seconds
from mesh.cli.doctor.rules import LEAST_KEPT, DoctorInput, FindingLevel, host_findings
from mesh.config.settings import parse_settings
from mesh.model.codes import Code
from mesh.sources.docker.container_files import ContainerFilesystem, container_filesystem
from mesh.sources.docker.log_files import ContainerLog
from tests.sources.docker.fake_engine import NAME, FakeEngine

WARNING, OK = FindingLevel.WARNING, FindingLevel.OK
NO_FILES: ContainerFilesystem = container_filesystem(None, None, None)


def findings(*outputs: CollectedOutput) -> list[tuple[FindingLevel, Code | None, str]]:
    settings = parse_settings("", {}, hostname="w1")
    found = host_findings(DoctorFacts("6.12.0", outputs=outputs), DoctorInput(settings, {}, None))
    return [(each.level, each.code, f"{each.found}; {each.mend}") for each in found if each.about.startswith("log ")]


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (
            CollectedOutput("web", "journald", False, 1),
            Code.DOCTOR_LOG_DRIVER,
            "container web logs by the driver journald",
        ),
        (CollectedOutput("web", "", False, 1), Code.DOCTOR_LOG_DRIVER, "the driver of another engine"),
        (CollectedOutput("web", "a\x1b[31m", False, 1), Code.DOCTOR_LOG_DRIVER, r"a\x1b[31m"),
        (CollectedOutput("web", "json-file", True, 1), Code.DOCTOR_LOG_ROTATION, 'max-file: "5"'),
        (CollectedOutput("web", "json-file", True, 3, 90.0), Code.DOCTOR_LOG_ROTATION, "max-size or max-file 7 times"),
        (CollectedOutput("web", "json-file", True, 3, 0.0), Code.DOCTOR_LOG_ROTATION, "go back 0 s"),
    ],
)
def test_what_would_lose_lines_is_a_warning(output: CollectedOutput, code: Code, words: str) -> None:
    ((level, found, text),) = [each for each in findings(output) if each[0] is not OK]
    assert (level, found) == (WARNING, code)
    assert words in text


def test_the_worst_of_several_is_named_and_the_others_are_counted() -> None:
    outputs = [CollectedOutput(f"web-{seconds}", "json-file", True, 3, float(seconds)) for seconds in (300, 60, 599)]
    texts = [text for level, _, text in findings(*outputs) if level is WARNING]
    assert len(texts) == 1
    assert texts[0].startswith("container web-60 (and 2 others)")


@pytest.mark.parametrize(
    "output",
    [
        CollectedOutput("web", "json-file", False, 1),
        CollectedOutput("web", "json-file", True, 2),
        CollectedOutput("web", "json-file", True, 2, LEAST_KEPT),
    ],
)
def test_rotation_that_keeps_enough_is_no_finding(output: CollectedOutput) -> None:
    assert [level for level, _, _ in findings(output)] == [OK]
    assert findings() == []


@pytest.mark.parametrize("name", ["x-json.log.2", "x-json.log.2.gz"])
def test_the_oldest_file_says_how_far_the_lines_go_back(tmp_path: Path, name: str) -> None:
    log = ContainerLog("json-file", str(tmp_path / "x-json.log"), "web:1", NO_FILES, True, 3)
    (tmp_path / "x-json.log.1").touch()
    assert kept_seconds(log, 1000.0) is None
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (0, 940))
    assert kept_seconds(log, 1000.0) == 60.0


@pytest.mark.parametrize(
    ("options", "rotates", "files"),
    [
        (None, False, 1),
        ({"max-size": "10m"}, True, 1),
        ({"max-size": "10m", "max-file": "2"}, True, 2),
        ({"max-size": "10m", "max-file": 2}, True, 1),
        ({"max-size": "10m", "max-file": "-1"}, True, 1),
    ],
)
async def test_the_engine_tells_what_labels_ask_for_and_how_it_is_rotated(
    tmp_path: Path, options: dict[str, object] | None, files: int, *, rotates: bool
) -> None:
    fake = FakeEngine()
    fake.labels["mesh.log_store_app"] = "stdout"
    path = tmp_path / "x-json.log"
    (tmp_path / "x-json.log.1").touch()
    log = {"Type": "json-file", "Config": options}
    fake.details = {"LogPath": str(path), "HostConfig": {"LogConfig": log}}
    async with fake.listening(tmp_path / "docker.sock") as url:
        found = await collected_outputs(parse_settings(f'[source.docker]\nsocket = "{url}"', {}, hostname="w1"))
    (output,) = found
    assert (output.container, output.driver, output.rotates, output.files) == (NAME, "json-file", rotates, files)
    assert (output.kept_seconds is not None) == (files == 2)


async def test_an_engine_that_does_not_answer_is_told_of_elsewhere(tmp_path: Path) -> None:
    settings = parse_settings(f'[source.docker]\nsocket = "unix://{tmp_path}/missing.sock"', {}, hostname="w1")
    assert await collected_outputs(settings) == ()
    assert await collected_outputs(parse_settings("", {}, hostname="w1")) == ()
