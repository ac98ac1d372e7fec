"""The digest of a specification: the same files give the same one, on each worker and in each version. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any

from mesh.platform.fleet.protocol import FleetSpec

ADDED_RELEASE_LABEL = "mesh.routing.release"
"""Label of containers, added where the file has no release. It says the digest, so the digest cannot have it."""


def spec_digest(spec: FleetSpec) -> str:
    """Return 64 hexadecimal digits that differ if other containers are made.

    The name, the count and the labels of the engine service do not count. Neither does a field that has its default, so
    a field that a later version adds changes no digest.
    """
    labels = {key: value for key, value in spec.container.labels.items() if key != ADDED_RELEASE_LABEL}
    bare = replace(
        spec,
        name="",
        labels={},
        instances=None if spec.instances is None else 1,
        container=replace(spec.container, labels=labels),
    )
    text = json.dumps(_canonical(bare), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        found = {each.name: getattr(value, each.name) for each in fields(value)}
        return {each.name: _canonical(found[each.name]) for each in fields(value) if found[each.name] != _default(each)}
    if isinstance(value, Mapping):
        return {str(key): _canonical(below) for key, below in value.items()}
    if isinstance(value, (tuple, list)):
        return [_canonical(item) for item in value]
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def _default(each: "Field[Any]") -> Any:
    if each.default_factory is not MISSING:
        return each.default_factory()
    return each.default
