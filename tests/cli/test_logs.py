"""`vipmesh logs` against an admin API: what it prints, and what a terminal must not obey."""

import asyncio
import json
from pathlib import Path

import pytest

from mesh.api.http.past_events import PastEventsHandler
from mesh.cli.log_lines import LogLineLayout, worker_notes
from mesh.cli.parser import build_parser
from mesh.platform.logs.reading.document import ServiceLogNote
from mesh.testing.log_lines import FakeServiceLogs
from tests.api.http.worker import serving, socket_of
from tests.system.e2e.programs import VIPMESH, call

LINE = {"text": "ready", "worker": "w1", "container": "web1", "service": "shop/web", "stream": "stdout"}


def test_what_a_terminal_would_obey_is_escaped() -> None:
    layout = LogLineLayout()
    hostile = {**LINE, "text": "\x1b[2Jgone\r\x07\nnew\tline", "container": "web\x1b[31m"}
    found = layout.line(hostile)
    assert found.isprintable()
    assert "\\x1b[2Jgone\\r\\x07\\nnew" in found
    assert "\x1b" not in LogLineLayout([("", "")]).line({**hostile, "time": "\x1b[2J"})


def test_each_instance_has_a_colour_and_keeps_it() -> None:
    layout = LogLineLayout([("<1>", "</1>"), ("<2>", "</2>")])
    other = {**LINE, "container": "web2"}
    layout.prepare([LINE, other])
    assert [layout.line(each).split()[1] for each in (LINE, other, LINE)] == [
        "<1>w1/web1</1>",
        "<2>w1/web2</2>",
        "<1>w1/web1</1>",
    ]


def test_columns_have_room_for_the_longest_name_up_to_a_bound() -> None:
    layout = LogLineLayout()
    layout.prepare([LINE, {**LINE, "container": "a-longer-name"}])
    assert f"{'w1/web1'.ljust(len('w1/a-longer-name'))}  ready" in layout.line(LINE)
    assert len(layout.line({**LINE, "container": "x" * 300})) < 400


def test_what_is_said_of_a_worker() -> None:
    assert worker_notes({"worker": "w2", "error": "no answer", "code": "VM676"}, "web") == [
        ("without the lines of web on w2: no answer", "VM676")
    ]
    assert worker_notes({"worker": "w2", "notes": [{"text": "by the engine", "code": "VM973"}]}, "web") == [
        ("worker w2: by the engine", "VM973")
    ]


@pytest.mark.parametrize("options", [("-n", "10001"), ("-n", "-1"), ("-n", "x"), ("--since", "soon")])
def test_options_out_of_bounds_are_refused(options: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["logs", "web", *options])


async def vipmesh(directory: Path, *options: str) -> tuple[int, str]:
    return await call(*VIPMESH, "logs", *options, "--admin", f"unix://{directory}/admin.sock")


async def test_lines_notes_and_refusals(tmp_path: Path) -> None:
    logs = FakeServiceLogs("w1")
    logs.write("first", second=1)
    logs.write("sec\x1b[2Jond", container="web2", second=2)
    logs.write("of another", container="db1", service="shop/db", second=3)
    async with serving(socket_of(tmp_path), past=PastEventsHandler(lambda: "w1"), logs=logs):
        code, text = await vipmesh(tmp_path, "web")
        assert code == 0
        assert [line.split("  ")[1:] for line in text.splitlines()] == [
            ["w1/web1", "first"],
            ["w1/web2", "sec\\x1b[2Jond"],
        ]
        code, text = await vipmesh(tmp_path, "shop/web", "-n", "1", "--json")
        assert [line["text"] for line in json.loads(text)["lines"]] == ["sec\x1b[2Jond"]
        code, text = await vipmesh(tmp_path, "web", "--grep", "fir", "--worker", "w1")
        assert (code, len(text.splitlines())) == (0, 1)
        code, text = await vipmesh(tmp_path, "web", "--grep", ".*")
        assert (code, text) == (0, "no lines of 'web' that match\n"), "no regular expression"
        code, text = await vipmesh(tmp_path, "nothing")
        assert (code, text.endswith("[VM974]\n")) == (1, True)
        logs.answer = logs.answer.__class__("w1", "engine", notes=(ServiceLogNote("by the engine", "VM973"),))
        code, text = await vipmesh(tmp_path, "web")
        assert text.endswith("vipmesh: worker w1: by the engine [VM973]\n")


async def test_follow_prints_lines_as_they_come(tmp_path: Path) -> None:
    logs = FakeServiceLogs("w1")
    logs.write("first", second=1)
    async with serving(socket_of(tmp_path), past=PastEventsHandler(lambda: "w1"), logs=logs), asyncio.timeout(50):
        address = f"unix://{tmp_path}/admin.sock"
        process = await asyncio.create_subprocess_exec(
            *VIPMESH, "logs", "web", "-f", "--json", "--admin", address, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert json.loads(await process.stdout.readline())["text"] == "first"
            logs.write("second", second=2)
            assert json.loads(await process.stdout.readline())["text"] == "second"
        finally:
            process.kill()
            await process.wait()
