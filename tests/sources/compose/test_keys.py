"""The table of keys is the specification's, and the page is the table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mesh.sources.compose.keys import (
    COMPOSE_KEYS,
    SERVICE_KEYS,
    TOP_LEVEL_KEYS,
    KeyUse,
    compose_key,
    service_key,
    unknown_key_remedy,
    unknown_keys,
)
from tests.docs.compose_keys import PAGE, page

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "compose" / "compose-spec.json").read_text())
FIRST_FORM = {"dockerfile", "log_driver", "log_opt", "net", "volume_driver"}
"""Keys of version 1 of the file format that no later version has."""
OWN = {"x-endpoints"}


def keys_below(schema: dict[str, Any], path: str) -> Iterator[str]:
    """The paths of all keys of a schema, with those of the objects that it is made of."""
    if reference := schema.get("$ref"):
        schema = SCHEMA["definitions"][reference.rpartition("/")[2]]
    for part in (schema, *schema.get("oneOf", ()), *schema.get("anyOf", ())):
        for key, value in part.get("properties", {}).items():
            yield f"{path}{key}"
            yield from keys_below(value, f"{path}{key}.")


def test_every_key_of_the_specification_is_in_the_table_and_no_other() -> None:
    assert set(SCHEMA["properties"]) == TOP_LEVEL_KEYS
    assert set(SCHEMA["definitions"]["service"]["properties"]) == SERVICE_KEYS - FIRST_FORM - OWN


def test_every_key_below_has_a_row_of_its_own_or_the_one_above() -> None:
    paths = list(keys_below(SCHEMA["definitions"]["service"], ""))
    assert "deploy.resources.limits.memory" in paths
    assert [path for path in paths if service_key(path) is None] == []
    listed = {row.path.removeprefix("services.*.") for row in COMPOSE_KEYS if row.path.startswith("services.*.")}
    assert listed - set(paths) == FIRST_FORM | OWN, "rows that the specification does not have"


def test_the_keys_of_deploy_and_healthcheck_are_decided_one_by_one() -> None:
    """All but those below a key that is refused or ignored as a whole."""
    listed = {row.path for row in COMPOSE_KEYS}
    for section in ("deploy", "healthcheck"):
        for path in keys_below(SCHEMA["definitions"]["service"]["properties"][section], f"services.*.{section}."):
            row = compose_key(path)
            assert row is not None
            below_a_decision = row.use in (KeyUse.REFUSED, KeyUse.IGNORED) or path.count(".") > 5
            assert path in listed or below_a_decision or "generic_resources" in path or "preferences" in path, path


def test_a_row_says_what_becomes_of_the_key_and_what_to_do_if_nothing_does() -> None:
    for row in COMPOSE_KEYS:
        assert row.becomes, row
        assert bool(row.remedy) == (row.use in (KeyUse.REFUSED, KeyUse.IGNORED)), row


def test_no_key_is_listed_twice() -> None:
    paths = [row.path for row in COMPOSE_KEYS]
    assert len(paths) == len(set(paths))


def test_unknown_keys_come_with_the_nearest_one() -> None:
    keys = {"imgae": 1, "x-mine": 1, "image": 1, "zzzzzzzz": 1}
    found = unknown_keys(keys, SERVICE_KEYS)
    assert [(key, unknown_key_remedy(key, SERVICE_KEYS)) for key in found] == [
        ("imgae", "write image if that is meant"),
        ("zzzzzzzz", "remove it, or begin it with x-"),
    ]


def test_the_page_is_generated_from_the_table() -> None:
    assert PAGE.read_text() == page()
