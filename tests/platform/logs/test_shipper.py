"""Reading in turns, delivering, saving positions: over failures, restarts and full disks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from typing_extensions import override

from mesh.config.labels.logs import LogLabels
from mesh.platform.logs.counters import LogCounters, render_counters
from mesh.platform.logs.documents import LogOrigin
from mesh.platform.logs.file_positions import FilePosition
from mesh.platform.logs.json_file import LogPosition
from mesh.platform.logs.positions import DamagedPositionsError, PositionFile
from mesh.platform.logs.refused_documents import RefusedDocumentFile
from mesh.platform.logs.shipper import MAX_BATCH, LogShipper, ShipperFiles
from mesh.platform.logs.targets import LogTarget
from mesh.testing.log_sink import MemoryLogSink


class FailingPositionFile(PositionFile):
    """A file on a disk that is full for a while."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.failures = 0

    @override
    def save(self, positions: Mapping[str, LogPosition], files: Sequence[FilePosition] = ()) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        super().save(positions, files)


class Lab:
    """Logs in a directory, a store in memory, and a shipper that can be started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sink = MemoryLogSink()
        self.positions = FailingPositionFile(directory / "positions.json")
        self.refused = directory / "refused.jsonl"
        self.counters = LogCounters()
        self.targets: dict[str, LogTarget] = {}
        self.shipper = self.started()

    def started(self) -> LogShipper:
        files = ShipperFiles(self.positions, RefusedDocumentFile(self.refused))
        self.shipper = LogShipper(self.sink, files, self.positions.load(), self.counters, clock=lambda: 0.0)
        self.shipper.update(list(self.targets.values()))
        return self.shipper

    def add(self, id: str, labels: LogLabels = LogLabels("app"), *, runs: bool = True) -> None:  # noqa: B008 -- frozen
        path = str(self.directory / f"{id}.log")
        self.targets[id] = LogTarget(LogOrigin(id, id, f"{id}/web", "w1"), labels, path, runs)
        self.shipper.update(list(self.targets.values()))

    def write(self, id: str, *texts: str) -> None:
        with (self.directory / f"{id}.log").open("a") as file:
            for text in texts:
                entry = {"log": f"{text}\n", "stream": "stdout", "time": "2026-11-30T11:59:16.358097495Z"}
                file.write(json.dumps(entry) + "\n")
        self.shipper.follow_rotation()

    def messages(self, id: str) -> list[str]:
        return [json.loads(each.body)["message"] for each in self.sink.stored.values() if each.store == f"{id}-app"]

    async def ship_all(self) -> None:
        while await self.shipper.ship_once():
            pass


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def test_lines_are_delivered_and_a_process_that_follows_delivers_the_rest(lab: Lab) -> None:
    lab.add("one")
    lab.write("one", "a", "b")
    await lab.ship_all()
    lab.write("one", "c")
    lab.started()
    await lab.ship_all()
    assert lab.messages("one") == ["a", "b", "c"]
    assert lab.counters.services["one/web"].lines == 3


@pytest.mark.looptime
async def test_a_store_that_fails_gets_the_same_lines_again(lab: Lab) -> None:
    lab.add("one")
    lab.write("one", *map(str, range(10)))
    lab.sink.failures = 3
    await lab.ship_all()
    assert lab.messages("one") == [*map(str, range(10))]
    assert (lab.counters.store_failures, lab.counters.services["one/web"].lines) == (3, 10)


@pytest.mark.looptime
async def test_nothing_further_is_read_while_the_position_cannot_be_saved(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.add("one")
    lab.write("one", "a")
    lab.positions.failures = 5
    assert await lab.shipper.ship_once()
    assert lab.positions.failures == 0
    assert [record.message for record in caplog.records if "No space left" in record.message] != []
    assert lab.positions.load().keys() == {"one"}


async def test_a_crash_between_the_store_and_the_position_repeats_nothing_in_the_store(lab: Lab) -> None:
    lab.add("one")
    lab.write("one", "a", "b")
    with patch.object(lab.positions, "save", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        await lab.shipper.ship_once()
    assert lab.positions.load() == {}
    lab.started()
    await lab.ship_all()
    assert lab.messages("one") == ["a", "b"]


async def test_a_container_that_writes_much_does_not_delay_another(lab: Lab) -> None:
    lab.add("loud")
    lab.add("quiet")
    lab.write("loud", *("x" * 1000 for _ in range(5000)))
    lab.write("quiet", "hello")
    assert await lab.shipper.ship_once()
    assert lab.messages("quiet") == ["hello"]
    assert 0 < len(lab.messages("loud")) < 5000
    assert sum(len(each.body) for each in lab.sink.stored.values()) <= MAX_BATCH
    await lab.ship_all()
    assert len(lab.messages("loud")) == 5000


async def test_a_document_that_is_refused_is_kept_with_the_reason_and_others_go_on(lab: Lab) -> None:
    lab.add("one")
    lab.sink.refuses = b"bad"
    lab.write("one", "a", "bad", "c")
    await lab.ship_all()
    assert lab.messages("one") == ["a", "c"]
    kept = json.loads(lab.refused.read_text())
    assert (kept["document"]["message"], kept["reason"]) == ("bad", "status 400: it was told to refuse it")
    assert lab.counters.services["one/web"].refused == 1


async def test_lines_above_the_rate_are_dropped_and_counted(lab: Lab) -> None:
    lab.add("one", LogLabels("app", rate_limit=3))
    lab.write("one", *map(str, range(10)))
    await lab.ship_all()
    assert lab.messages("one") == ["0", "1", "2"]
    assert lab.counters.services["one/web"].limited == 7


async def test_a_removed_container_is_read_to_its_end_and_forgotten(lab: Lab, tmp_path: Path) -> None:
    lab.add("one")
    lab.write("one", "a")
    (tmp_path / "one.log").unlink()
    lab.shipper.update([])
    await lab.ship_all()
    assert lab.messages("one") == ["a"]
    lab.add("two")
    lab.targets.pop("one")
    lab.write("two", "b")
    await lab.ship_all()
    assert lab.positions.load().keys() == {"two"}


async def test_one_log_that_cannot_be_opened_does_not_concern_another(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one.log").mkdir()
    lab.add("one")
    lab.add("two")
    lab.write("two", "a")
    await lab.ship_all()
    assert lab.messages("two") == ["a"]
    assert "container one: its log" in caplog.text


def test_a_damaged_file_of_positions_is_set_aside(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "positions.json")
    file.save({"one": LogPosition("g", 7)})
    assert file.load() == {"one": LogPosition("g", 7)}
    for damaged in (b"", b"{", b'{"version":2,"positions":{}}', b'{"version":1,"positions":{"a":{"offset":1}}}'):
        (tmp_path / "positions.json").write_bytes(damaged)
        with pytest.raises(DamagedPositionsError):
            file.load()
        assert file.load() == {}
        assert (tmp_path / "positions.json.damaged").read_bytes() == damaged


def test_the_file_of_refused_documents_has_a_bound(tmp_path: Path) -> None:
    from mesh.platform.logs.sinks import RefusedDocument
    from tests.platform.logs.sinks import documents

    file = RefusedDocumentFile(tmp_path / "refused.jsonl", limit=2000)
    for number in range(30):
        file.append([RefusedDocument(each, "no") for each in documents(f"line {number}")])
    sizes = [each.stat().st_size for each in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 2000


def test_the_counters_are_in_the_text_format_of_prometheus() -> None:
    counters = LogCounters(unread_bytes=5)
    counters.of('a"b/web').lines = 3
    text = render_counters(counters)
    assert 'vipmesh_ship_lines_total{service="a\\"b/web"} 3\n' in text
    assert "# TYPE vipmesh_ship_unread_bytes gauge\nvipmesh_ship_unread_bytes 5\n" in text
