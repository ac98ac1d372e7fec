"""How Elasticsearch and OpenSearch delete documents after `log_ttl_<name>`: names, templates, policies. Pure.

An index is deleted as a whole. So documents with a time to live are in an index for each day,
`<prefix>-<store>.<days>d-2026.12.01`, whose policy deletes it `days` + 1 days after its date. A repeat of a document is
in the same index, since its date is that of the line. The point is in no name of a store, so no project can have a name
that a policy takes for its own.

https://www.elastic.co/guide/en/elasticsearch/reference/8.17/index-lifecycle-management.html
https://docs.opensearch.org/latest/im-plugin/ism/policies/
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from mesh.config.settings import LogLifecycle
from mesh.platform.logs.documents import LogDocument
from mesh.sources.docker.inspection import start_time

_DAY = 86_400_000_000_000
"""Nanoseconds."""
_OLDEST = 400
"""Days of the past for which an index may be made: more than the longest time to live."""


@dataclass(frozen=True, slots=True)
class DocumentPlace:
    """Where a document is stored."""

    index: str
    ttl_days: int | None
    """The policy that the index has; None: it stays."""


class StoreObject(NamedTuple):
    """A policy or a template, as the API of the store has it."""

    path: str
    body: bytes


class LivingDocument(msgspec.Struct, frozen=True):
    """A document, as far as its life is concerned."""

    timestamp: str = msgspec.field(name="@timestamp", default="")
    ttl_days: int | None = None


def place_of(document: LogDocument, prefix: str, now: int) -> DocumentPlace:
    """Return where a document goes. `now` is in nanoseconds since 1970."""
    fields = msgspec.json.decode(document.body, type=LivingDocument)
    name = f"{prefix}-{document.store}"
    if fields.ttl_days is None:
        return DocumentPlace(name, None)
    today = now // _DAY
    day = (start_time(fields.timestamp) or now) // _DAY
    # What a container writes as its time makes no indices of other years.
    date = _date(max(min(day, today + 1), today - _OLDEST))
    return DocumentPlace(f"{name}.{fields.ttl_days}d-{date}", fields.ttl_days)


def store_objects(kind: LogLifecycle, prefix: str, ttl_days: int | None) -> Iterator[StoreObject]:
    """Return what indices with this time to live need, in the order in which it is made."""
    if ttl_days is None:
        # A longer prefix may begin with a shorter one: the longer one counts.
        yield _template(prefix, f"{prefix}-*", 100 + len(prefix), {})
        return
    name, pattern = f"{prefix}-{ttl_days}d", f"{prefix}-*.{ttl_days}d-*"
    # Patterns that a name could match at once must differ in their priority.
    priority = 200 + 400 * len(prefix) + ttl_days
    if kind is LogLifecycle.ILM:
        yield StoreObject(f"/_ilm/policy/{name}", msgspec.json.encode(_ilm_policy(ttl_days)))
        settings: dict[str, object] = {
            "index.lifecycle.name": name,
            "index.lifecycle.parse_origination_date": True,  # the age is that of the date in the name
        }
    else:
        body = msgspec.json.encode(_ism_policy(ttl_days, pattern, priority))
        yield StoreObject(f"/_plugins/_ism/policies/{name}", body)
        settings = {}
    yield _template(name, pattern, priority, settings)


def _template(name: str, pattern: str, priority: int, settings: dict[str, object]) -> StoreObject:
    keywords = {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 1024}}
    mappings = {
        "dynamic_templates": [{"texts": keywords}],
        "properties": {
            "@timestamp": {"type": "date_nanos"},
            "message": {"type": "text"},
            "ttl_days": {"type": "short"},
        },
    }
    body = {
        "index_patterns": [pattern],
        "priority": priority,
        "template": {"settings": settings, "mappings": mappings},
        "_meta": {"description": "made by vipmesh ship if it is missing, and never changed by it"},
    }
    return StoreObject(f"/_index_template/{name}", msgspec.json.encode(body))


def _ilm_policy(ttl_days: int) -> dict[str, object]:
    delete = {"min_age": f"{ttl_days + 1}d", "actions": {"delete": {}}}
    return {"policy": {"phases": {"hot": {"actions": {}}, "delete": delete}}}


def _ism_policy(ttl_days: int, pattern: str, priority: int) -> dict[str, object]:
    ends = {"state_name": "deleted", "conditions": {"min_index_age": f"{ttl_days + 1}d"}}
    return {
        "policy": {
            "description": f"log_ttl of {ttl_days} days",
            "default_state": "kept",
            "states": [
                {"name": "kept", "actions": [], "transitions": [ends]},
                {"name": "deleted", "actions": [{"delete": {}}], "transitions": []},
            ],
            "ism_template": [{"index_patterns": [pattern], "priority": priority}],
        }
    }


@lru_cache(maxsize=_OLDEST + 2)
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86400, UTC).strftime("%Y.%m.%d")
