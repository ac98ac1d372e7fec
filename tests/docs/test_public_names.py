"""Public names stay as they were before the first move of issue 15: users, operators and programs depend on them."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from mesh.api.events import EVENT_NAMES
from mesh.cluster.records.encode import build_view
from mesh.config.labels.reader import FOREIGN_LABELS, HEADER_LABEL_PREFIX, KNOWN_LABELS, UNSUPPORTED_LABELS
from mesh.model.codes import Code
from tests.docs import sample_cluster
from tests.docs.public_names import (
    COLLECTORS,
    Document,
    described,
    documents,
    live,
    load_view,
    ran,
    save_view,
)
from tests.docs.sample_cluster import DATA, encoded_again, registered, stored, written
from tests.system.e2e.programs import VIPMESH, call

FILE = Path(__file__).with_name("public_names.json")
LISTED: Mapping[str, Sequence[str]] = json.loads(FILE.read_text())


def differences(section: str, listed: Sequence[str], found: Iterable[str]) -> str:
    """The sentences about names that are missing and names that are new; empty if both are the same."""
    there = list(found)
    gone = [line for line in listed if line not in there]
    new = [line for line in there if line not in listed]
    sentences = []
    if gone:
        sentences += [
            f"The public names of section {section!r} must stay. These are removed or changed; restore them:",
            *gone,
        ]
    if new:
        remedy = f"add each as a line to section {section!r} of tests/docs/{FILE.name} if it is meant to be public"
        sentences += [f"These public names of section {section!r} are not listed; {remedy}:", *new]
    return "\n".join(sentences)


@pytest.mark.parametrize("section", LISTED)
def test_public_names_stay_and_new_ones_are_listed(section: str) -> None:
    difference = differences(section, LISTED[section], COLLECTORS[section]())
    if difference:
        pytest.fail(difference, pytrace=False)


def test_the_list_has_every_section_and_every_line_once() -> None:
    assert LISTED.keys() == COLLECTORS.keys()
    assert [line for lines in LISTED.values() for line in set(lines) if lines.count(line) > 1] == []


def test_a_removed_name_is_reported() -> None:
    assert differences("codes", ["VM101", "VM102"], ["VM101"]) == (
        "The public names of section 'codes' must stay. These are removed or changed; restore them:\nVM102"
    )


def test_a_changed_name_is_reported_as_removed_and_as_new() -> None:
    text = differences("settings", ["[dns] ttl = 5"], ["[dns] ttl = 6"])
    assert "restore them:\n[dns] ttl = 5\n" in text
    assert text.endswith("if it is meant to be public:\n[dns] ttl = 6")


def test_an_added_name_is_reported_with_the_list_to_add_it_to() -> None:
    assert differences("codes", ["VM101"], ["VM101", "VM102"]) == (
        "These public names of section 'codes' are not listed; add each as a line to section 'codes' of "
        "tests/docs/public_names.json if it is meant to be public:\nVM102"
    )


def test_the_same_names_in_another_order_are_no_difference() -> None:
    assert differences("codes", ["VM101", "VM102"], ["VM102", "VM101"]) == ""


# ---------------------------------------------------------------------------------------------------- real documents


def test_real_answers_of_the_api_have_no_field_that_is_not_listed() -> None:
    answers: list[tuple[str, Any]] = [
        ("status", live().status),
        ("explain", live().explanation),
        ("answer to a verb", live().done),
        ("refusal", live().refusal),
        *((f"event {name}", data) for name, data in live().events),
    ]
    for name, answer in answers:
        assert _unlisted(documents()[name], answer) == [], name


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("vipmesh check, an error in the file", "check"),
        ("vipmesh check, unusable settings", "failure of a verb"),
        ("vipmesh status, no daemon", "failure of a verb"),
        ("vipmesh drain, no daemon", "drain, maintenance, undrain, stop"),
    ],
)
def test_real_output_of_the_command_line_has_no_field_that_is_not_listed(run: str, name: str) -> None:
    _, output = ran()[run]
    assert _unlisted(documents()[name], json.loads(output)) == []


async def test_real_output_of_doctor_has_no_field_that_is_not_listed(tmp_path: Path) -> None:
    settings = tmp_path / "vipmesh.toml"
    settings.write_text(f'[dataplane]\ndriver = "userspace"\n[store]\nurl = "sqlite:///{tmp_path}/store.db"\n')
    _, output = await call(*VIPMESH, "doctor", "-c", str(settings), "--json")
    assert _unlisted(documents()["doctor"], json.loads(output)) == []


def test_the_description_of_the_api_has_the_fields_of_the_code() -> None:
    names = {"status": "WorkerStatus", "explain": "Explanation"}
    schemas = {"worker": "WorkerStatus", "service": "ServiceStatus", "gone": "Gone", "flow": "Flow", "ready": "Ready"}
    schemas["happened"] = "NumberedEvent"
    names |= {f"event {name}": schemas[name] for name in EVENT_NAMES.values()}
    for name, component in names.items():
        assert list(described(component).fields()) == list(documents()[name].fields()), component


def _unlisted(document: Document, value: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(document.strict()).iter_errors(value)]


# --------------------------------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("key", stored())
def test_a_stored_record_is_decoded_and_encoded_to_the_same_bytes(key: str) -> None:
    value = stored()[key]
    assert encoded_again(key, value) == (key, value)


def test_the_stored_records_are_decoded_as_a_whole() -> None:
    found, problems = build_view(stored())
    assert problems == ()
    assert (len(found.services), len(found.endpoints), len(found.health)) == (4, 5, 4)
    assert found.workers == {"worker-1", "worker 2"}


def test_the_same_cluster_is_written_to_the_same_bytes() -> None:
    assert written() == stored()


@pytest.mark.parametrize("prefix", ["aliyun.", "mesh."])
def test_the_labels_of_both_prefixes_are_registered_as_the_same_bytes(prefix: str) -> None:
    records, problems = registered(prefix)
    # Nothing acts on the labels of autoscaling yet, which is told once for each service.
    assert [problem.code for problem in problems] == [Code.LABEL_NOT_SUPPORTED] * 2
    assert records == {key: stored()[key] for key in records}
    assert len(records) == 7


def test_the_sample_uses_every_label() -> None:
    used = [*sample_cluster.WEB, *sample_cluster.RESOLVER, *sample_cluster.TUNNELLED]
    unused = {*UNSUPPORTED_LABELS, *FOREIGN_LABELS}
    beginnings = [known.partition("<")[0] for known in KNOWN_LABELS if known not in unused]
    assert HEADER_LABEL_PREFIX in beginnings
    assert [known for known in beginnings if not any(label.startswith(known) for label in used)] == []


def test_a_saved_view_is_loaded_and_saved_to_the_same_bytes(tmp_path: Path) -> None:
    path, before = tmp_path / "view.json", (DATA / "view.json").read_bytes()
    path.write_bytes(before)
    snapshot = asyncio.run(load_view(path))
    assert snapshot is not None
    assert (snapshot.revision, snapshot.origin, snapshot.records) == (42, "4f1d8c", stored())
    path.unlink()
    assert asyncio.run(save_view(snapshot, path)) == before


def test_a_saved_view_holds_the_records_as_they_are() -> None:
    content = msgspec.json.decode((DATA / "view.json").read_bytes(), type=dict[str, Any])
    assert content["records"].keys() == stored().keys()
