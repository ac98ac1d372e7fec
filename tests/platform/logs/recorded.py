"""The schemas and the recorded answers in tests/data/logs, whose README says where they are from."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_DIRECTORY = Path(__file__).parents[2] / "data" / "logs"


def validator(name: str) -> Draft202012Validator:
    """What checks a document against a schema."""
    schema = json.loads((_DIRECTORY / name).read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def answers(name: str) -> dict[str, Any]:
    """Recorded answers by their names: status, body, headers."""
    found: dict[str, Any] = json.loads((_DIRECTORY / name).read_text())
    return found
