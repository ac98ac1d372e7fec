"""Values of probe headers are in no record, in no store and in no saved view; earlier versions read what is left."""

import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mesh.cluster.records.encode import build_view, encode_registration
from mesh.cluster.records.redaction import redact_record
from mesh.config.labels.parse import parse_labels
from mesh.model.eligibility import probe_of
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Service
from mesh.store.cached import CachedStore
from mesh.store.sqlite import SqliteStore
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import PROBED_WEB_LABELS, endpoint, service

EARLIER = Path(__file__).resolve().parents[1] / "data" / "version-0.1.0-f76dd97.tar.xz"
SECRET = "Bearer 8d3aa64f1c"
PROBE = Probe(
    ProbeKind.HTTPS,
    443,
    "/health",
    interval=1.5,
    expect_status=((204, 204),),
    headers=(("Authorization", SECRET), ("X-Tenant", f"tenant of {SECRET}")),
    expect_body="ready",
)
WITHHELD = replace(PROBE, headers=(), withheld_headers=("Authorization", "X-Tenant"))
WEB = service("web.test", probe=PROBE)
KEY = "workers/w1/services/demo%2Fweb"


def of_version_0_1_0(service: Service) -> bytes:
    """The record of the service as version 0.1.0 writes it."""
    fields = msgspec.to_builtins(service, order="deterministic")
    del fields["probe"]["withheld_headers"]
    return msgspec.json.encode({"v": 1, **fields})


OLD_RECORDS: Mapping[str, bytes] = {
    KEY: of_version_0_1_0(WEB),
    "claims/names/web.test": b'{"v": 1, "owner": "demo/web"}',
}


@pytest.mark.parametrize("records", [encode_registration("w1", [WEB], []), OLD_RECORDS], ids=["this", "0.1.0"])
def test_the_view_names_headers_and_has_no_values(records: Mapping[str, bytes]) -> None:
    seen, problems = build_view(records)
    assert not problems
    assert [each.probe for each in seen.services] == [WITHHELD]


def test_records_of_both_versions_declare_the_same_service() -> None:
    theirs = {KEY.replace("w1", "w2"): of_version_0_1_0(WEB)}
    _, problems = build_view({**encode_registration("w1", [WEB], []), **theirs})
    assert not problems


def test_no_record_has_a_value_and_one_without_headers_is_that_of_version_0_1_0() -> None:
    (value,) = encode_registration("w1", [WEB], []).values()
    assert SECRET.encode() not in value
    assert redact_record(KEY, value) == value
    plain = WEB.with_probe(replace(PROBE, headers=()))
    assert encode_registration("w1", [plain], []) == {KEY: of_version_0_1_0(plain)}


def test_a_header_is_part_of_no_other_probe() -> None:
    labels = {**PROBED_WEB_LABELS, "mesh.probe.url": "tcp://container:80", "mesh.probe.header.X-Token": SECRET}
    parsed = parse_labels(labels, owner="demo/web", subject="web", domain="test", pool=None, commands=True)
    assert parsed.service is not None
    assert parsed.service.probe is not None
    assert not parsed.service.probe.has_headers


READ = """
import sys
from mesh.store import records
seen, problems = records.view({sys.argv[1]: sys.stdin.buffer.read()})
print(problems, [(s.probe.headers, s.probe.expect_status, s.probe.expect_body, s.probe.path) for s in seen.services])
"""


@pytest.mark.parametrize("written", ["encoded", "redacted"])
def test_version_0_1_0_probes_without_headers_and_accepts_any_response(tmp_path: Path, written: str) -> None:
    """Its own instances of the service stay in traffic while they answer: it must not send a request without headers
    and take the refusal for a failure.
    """
    with tarfile.open(EARLIER) as archive:
        archive.extractall(tmp_path, filter="data")
    (encoded,) = encode_registration("w1", [WEB], []).values()
    value = encoded if written == "encoded" else redact_record(KEY, OLD_RECORDS[KEY])
    assert value is not None
    done = subprocess.run(
        [sys.executable, "-c", READ, KEY],
        input=value,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{tmp_path / 'dns'}"},
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode() == "() [((), ((100, 599),), '', '/health')]\n", done.stderr.decode()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"{", None),
        (b"[" * 100_000, None),
        (b"7", None),
        (b'"' + b"x" * (256 << 10) + b'"', None),
        (b'{"probe": 5}', b'{"probe": 5}'),
        (b'{"probe": {"headers": []}}', b'{"probe": {"headers": []}}'),
    ],
)
def test_what_cannot_be_read_is_not_kept(value: bytes, kept: bytes | None) -> None:
    assert redact_record(KEY, value) == kept
    assert redact_record("claims/names/web.test", value) == value


@pytest.mark.parametrize(
    "headers", [5, "secret", {"secret": 1}, [["a"]], [[]], [5], [["a", "secret", 1]], True], ids=repr
)
@pytest.mark.parametrize("field", ["probe", "own_probe"])
def test_headers_of_any_form_are_removed(field: str, headers: object) -> None:
    kept = redact_record(KEY, msgspec.json.encode({field: {"headers": headers}}))
    assert kept is not None
    assert b"secret" not in kept


def files(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def test_a_store_of_version_0_1_0_loses_the_values_at_a_start(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    old = await SqliteStore.open(path, "w1")
    await old.claim({"claims/a": b"1"})
    await old.register({**OLD_RECORDS, KEY + "2": OLD_RECORDS[KEY]})
    await old.register(OLD_RECORDS)  # one is deleted, and remains in an unused part of the file
    await old.close()
    assert SECRET.encode() in files(tmp_path)
    store = await SqliteStore.open(path, "w1", redact_record)
    assert SECRET.encode() not in files(tmp_path), "not even while it is open"
    records = (await store.read()).records
    assert records["claims/a"] == b"1"
    assert [each.probe for each in build_view(records)[0].services] == [WITHHELD]
    await store.close()
    again = await SqliteStore.open(path, "w1", redact_record)
    assert (await again.read()).records == records
    await again.close()
    assert SECRET.encode() not in files(tmp_path)


@pytest.mark.parametrize("deleted", [True, False])
async def test_remains_of_deleted_records_of_version_0_1_0_are_removed(tmp_path: Path, deleted: bool) -> None:
    path = tmp_path / "store.db"
    old = await SqliteStore.open(path, "w1")
    assert old._database is not None  # noqa: SLF001
    old._database.execute("PRAGMA secure_delete = OFF")  # noqa: SLF001
    old._database.execute("PRAGMA user_version = 0")  # noqa: SLF001
    await old.register(OLD_RECORDS)
    await old.register({} if deleted else {KEY: b"{}"})
    await old.close()
    assert SECRET.encode() in files(tmp_path)
    store = await SqliteStore.open(path, "w1", redact_record)
    await store.close()
    assert SECRET.encode() not in files(tmp_path)


async def test_a_view_saved_by_version_0_1_0_loses_the_values_at_a_start(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    path = tmp_path / "view.json"
    old = await CachedStore.open(MemoryStore(cluster, "w1"), path)
    await old.register(OLD_RECORDS)
    old._save(await old.read())  # noqa: SLF001
    await old.close()
    assert any(SECRET.encode() in value for value in saved(path).values())
    store = await CachedStore.open(MemoryStore(cluster, "w1"), path, redact_record)
    kept = await store.saved()
    assert kept is not None
    assert [each.probe for each in build_view(kept.records)[0].services] == [WITHHELD]
    assert saved(path) == kept.records
    assert not any(SECRET.encode() in value for value in saved(path).values())


async def test_records_of_workers_of_version_0_1_0_are_saved_without_values(tmp_path: Path) -> None:
    path = tmp_path / "view.json"
    store = await CachedStore.open(MemoryStore(MemoryCluster(), "w1"), path, redact_record)
    await store.register(OLD_RECORDS)
    store._save(await store.read())  # noqa: SLF001
    assert saved(path).keys() == OLD_RECORDS.keys()
    assert not any(SECRET.encode() in value for value in saved(path).values())
    await store.close()


def saved(path: Path) -> Mapping[str, bytes]:
    """The records of a saved view."""

    class Content(msgspec.Struct):
        records: dict[str, bytes]

    return msgspec.json.decode(path.read_bytes(), type=Content).records


ENDPOINT_KEY = "workers/w1/endpoints/a"
DIFFERS = endpoint().with_declared(WEB)


def test_what_an_endpoint_declares_itself_has_no_values_either() -> None:
    plain = WEB.with_probe(replace(PROBE, headers=()))
    records = encode_registration("w1", [plain], [DIFFERS])
    value = records[ENDPOINT_KEY]
    assert SECRET.encode() not in value
    assert redact_record(ENDPOINT_KEY, value) == value
    seen, problems = build_view(records)
    assert not problems
    assert [probe_of(seen.services[0], each) for each in seen.endpoints] == [WITHHELD]


def test_values_that_another_worker_wrote_for_its_endpoint_are_neither_used_nor_kept() -> None:
    fields = {**msgspec.to_builtins(DIFFERS, order="deterministic"), "v": 1}
    value = msgspec.json.encode(fields)
    assert SECRET.encode() in value
    kept = redact_record(ENDPOINT_KEY, value)
    assert kept is not None
    assert SECRET.encode() not in kept
    plain = encode_registration("w1", [WEB.with_probe(replace(PROBE, headers=()))], [])
    for written in (value, kept):
        seen, problems = build_view({**plain, ENDPOINT_KEY: written})
        assert not problems
        assert [probe_of(seen.services[0], each) for each in seen.endpoints] == [WITHHELD]


def test_a_record_of_a_daemon_and_one_of_an_endpoint_without_headers_stay_as_they_are() -> None:
    for key in ("workers/w1/daemon", "workers/w1/endpoints/daemon", "workers/w1", "health/w1/a"):
        assert redact_record(key, b'{"v": 1}') == b'{"v": 1}'
    hidden = b'{"probe": {"headers": [["a", "b"]]}}'
    assert redact_record("workers/w1/endpoints/daemon", hidden) != hidden
