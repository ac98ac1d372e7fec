"""Targets that are functions: parsers and the gate. What is not their documented error is a failure."""

import base64
import json
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import msgspec

from mesh.api.cluster_events import cluster_document, read_answer
from mesh.api.past_events import PastEventsDocument
from mesh.api.service_logs import LogFollowing, merged_document, read_log_answer
from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import build_view, encode_registration
from mesh.cluster.registration import register_instances
from mesh.config.labels.parse import KNOWN_LABELS, LABEL_PREFIXES
from mesh.config.settings import SETTINGS, environment_variable, parse_settings
from mesh.model.errors import SettingsError
from mesh.model.past_event import MAX_EVENT_TEXT, bounded_text
from mesh.model.service import Instance
from mesh.platform.logs.reading.query import LogQuery, parse_log_query
from mesh.platform.logs.ship_state import read_ship_state
from mesh.platform.stacks.kept_deploys import decode_deploys, encode_deploys, merge_deploys
from mesh.platform.stacks.listing import bounded_document
from mesh.platform.stacks.model import StackSite
from mesh.platform.stacks.placing import zone_problems
from mesh.platform.stacks.stack import read_stack
from mesh.platform.stacks.translate import translate
from mesh.sources.compose.environment import read_environment
from mesh.sources.compose.limits import ComposeBudget, ComposeLimits
from mesh.sources.compose.links import link_problems
from mesh.sources.compose.model import ComposeFile
from mesh.sources.compose.parse import read_compose_project
from mesh.sources.compose.ports import endpoint_port_problems
from mesh.sources.compose.references import ComposeFiles, ComposeText
from mesh.sources.docker.container_lines import MAX_LINE as MAX_LOG_LINE
from mesh.sources.docker.container_lines import parse_container_lines
from mesh.sources.docker.events import event_meaning
from mesh.sources.docker.gate import EventLines, convert_containers
from mesh.sources.docker.inspection import StopConfig, inspection_of
from mesh.sources.docker.instances import ContainerHistory, InstanceRules, read_instances
from mesh.sources.docker.messages import ContainerDetails
from mesh.store.etcd import errors as etcd_errors
from mesh.store.etcd.messages import (
    AuthToken,
    LeaseGrant,
    LeaseKeepAlive,
    RangeResponse,
    TransactionResponse,
    WatchMessage,
    decode_response,
)
from tests.fuzz.choices import BUDGET, ByteChoices
from tests.fuzz.seeds import (
    COMPOSE_FILES,
    CONTAINER,
    ENGINE_EVENT,
    ENV_FILES,
    ETCD_ANSWERS,
    GOOD_LABELS,
    INSPECTION,
    LOG_LINES,
    PAST_EVENTS,
    RECORDS,
    SETTINGS_FILES,
)

DOMAIN, POOL = "mesh.internal", ip_network("10.112.0.0/16")
RULES = InstanceRules(DOMAIN, worker="192.0.2.11")
_LABELS = tuple(sorted(KNOWN_LABELS)) + tuple(f"routing.port_{port}" for port in ("80", "80/udp", "0", "65536", "x"))
_LONGEST_PROBLEM = 4000


def check_shown(problems: Iterable[object], longest: int = _LONGEST_PROBLEM) -> None:
    """What is shown in a terminal is on one line, without control characters, and has an end."""
    for problem in problems:
        text = str(problem)
        assert text.isprintable(), ascii(text[:500])
        assert len(text) <= longest, f"{len(text)} characters: {text[:200]}"


def chosen_labels(choices: ByteChoices) -> dict[str, str]:
    """Return labels of one container: good ones, known ones with any value, and any."""
    labels = dict(GOOD_LABELS) if choices.flag() else {}
    while not choices.is_used_up() and len(labels) < 60:
        key = choices.pick(LABEL_PREFIXES) + choices.pick(_LABELS) if choices.number(8) < 7 else choices.text()
        labels[key] = choices.text()
    return labels


def check_channel(data: bytes) -> None:
    """The events of another worker are within the bounds of own ones, or its answer is refused."""
    choices = ByteChoices(data)
    try:
        answer = read_answer("w2", choices.encoded(PAST_EVENTS), 1.0, 2.0)
    except ValueError as error:
        check_shown([bounded_text(str(error))])
        return
    for kept in answer.events:
        event = kept.event
        check_shown([event.text, event.code, event.reason or "-", *event.names], MAX_EVENT_TEXT)
    msgspec.json.encode(cluster_document(PastEventsDocument("w1", 1.0), answer.events, [answer.asked], 0))


def check_log_lines(data: bytes) -> None:
    """Lines of another worker are within the bounds, about the service and its own; those of an engine are lines."""
    choices = ByteChoices(data)
    for line in parse_container_lines(choices.raw()):
        assert len(line.text) <= MAX_LOG_LINE + len(data)
    with suppress(ValueError):
        query = parse_log_query(choices.text(), {"after": choices.text(), "since": choices.text()}, 1.0)
        assert parse_log_query(query.service, query.parameters(), 1.0).after == query.after
    with suppress(ValueError):
        read_ship_state(
            choices.encoded({"lag_seconds": 1.5, "lost": 1, "waits": [{"part": "a", "text": "b", "code": ""}]})
        )
    try:
        answer = read_log_answer("w2", "web", choices.encoded(LOG_LINES))
    except ValueError as error:
        check_shown([bounded_text(str(error))])
        return
    document = merged_document("w1", 1.0, 5, [answer])
    assert len(document.lines) <= 5
    assert all((line.worker, line.service.rpartition("/")[2]) == ("w2", "web") for line in document.lines)
    check_shown([each.text for each in answer.asked.notes])
    LogFollowing(LogQuery("web")).take([answer])


def check_labels(data: bytes) -> None:
    """Labels of a container are a service that passes the gate of every other worker, or problems."""
    choices = ByteChoices(data)
    owner = choices.text() if choices.flag() else "shop/web"
    instance = Instance(f"{owner}/1", owner, choices.pick(("10.1.0.1", "2001:db8::1")), chosen_labels(choices))
    other = Instance("shop/good/1", "shop/good", "10.1.0.9", {"mesh.routing.port_80": "good.test"})
    registration = register_instances([instance, other], worker="w1", domain=DOMAIN, pool=POOL)
    assert not registration.failed, registration.failed
    check_shown(problem for _, problem in registration.problems)
    assert "shop/good/1" in [endpoint.id for endpoint in registration.endpoints]
    view, problems = build_view(encode_registration("w1", registration.services, registration.endpoints))
    assert not problems, problems
    assert set(view.services) == set(registration.services)
    assert len(view.endpoints) == len(registration.endpoints)


FEW = ComposeLimits(file_bytes=4096, values=100, problems=3)
"""Bounds that small files pass."""


def check_compose(data: bytes) -> None:
    """Compose files, and what they name, are services or problems, a bounded number of them."""
    choices = ByteChoices(data)
    files = ReferencedTexts()
    texts = [ComposeText("compose.yaml", _edited_text(choices, choices.pick(COMPOSE_FILES)))]
    if choices.flag():
        texts.append(ComposeText("override.yaml", _edited_text(choices, choices.pick(COMPOSE_FILES))))
    for name, seed in ENV_FILES.items():
        files[name] = _edited_text(choices, seed)
    files["base.yaml"] = _edited_text(choices, choices.pick(COMPOSE_FILES))
    texts[0] = ComposeText("compose.yaml", texts[0].text + choices.rest().decode("utf-8", "replace"))
    variables = {"A": "x" * 1000, "B": "${A}"}
    read = read_compose_project(texts, "", [variables] * len(texts), files)
    check_shown(read.problems)
    for service in read.services.values():
        check_shown(endpoint_port_problems(service))
        check_shown(read_environment(service, files)[1])
    check_shown(link_problems(read.services, {}))
    check_stack(read, files)
    few = read_compose_project(texts, "", [variables] * len(texts), files, ComposeBudget(FEW, len(texts)))
    assert len(few.problems) <= FEW.problems + 2
    shown = sum(len(value) for service in few.services.values() for value in service.labels.values())
    assert shown <= len(texts) * FEW.characters


def check_stack(read: ComposeFile, files: ComposeFiles) -> None:
    """A stack of the files is translated, and the same one again has the same digests."""
    environments = {name: read_environment(service, files)[0] for name, service in read.services.items()}
    stack = read_stack(read, "shop", environments, "mesh.internal")
    check_shown(stack.problems)
    site = StackSite(("10.112.0.1",), "mesh.internal")
    desired = translate(stack, {}, site, {})
    check_shown(desired.problems)
    assert {service.name for service in desired.services} <= read.services.keys() - stack.refused
    assert [service.digest for service in translate(stack, {}, site, {}).services] == [
        service.digest for service in desired.services
    ]
    assert zone_problems(desired, ()) == zone_problems(desired, ())


class ReferencedTexts(dict[str, str]):
    """Files that compose files name, by path."""

    def read(self, path: str) -> str:
        """Return the text of a file. Raises `FileNotFoundError`."""
        if path not in self:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self[path]


def _edited_text(choices: ByteChoices, text: str) -> str:
    for _ in range(choices.number(4)):
        at = choices.number(len(text) + 1)
        text = text[:at] + choices.text() + text[at + choices.number(20) :]
    return text


def check_engine(data: bytes) -> None:
    """Events, lists and inspections of the engine cost nothing but what cannot be read in them."""
    choices = ByteChoices(data)
    lines = [choices.encoded(ENGINE_EVENT) for _ in range(choices.number(4))]
    reader = EventLines()
    for piece in choices.pieces(b"\n".join((*lines, b""))):
        for event in reader.feed(piece):
            event_meaning(event, StopConfig() if choices.flag() else None)
    inspected = {}
    with suppress(msgspec.ValidationError, UnicodeEncodeError, OverflowError):
        details = msgspec.convert(choices.edited(INSPECTION), ContainerDetails)
        inspected[str(CONTAINER["Id"])] = inspection_of(details)
    entries = [choices.edited(CONTAINER), {**CONTAINER, "Id": "e" * 64, "Names": ["/good"]}]
    if not all(isinstance(entry, dict) for entry in entries):
        return  # the client library refuses it before
    try:
        containers = convert_containers(entries)
    except ValueError:  # an entry without ID or state: no list of containers
        return
    listing = read_instances(containers, {"bridge": "bridge"}, RULES, ContainerHistory(inspected=inspected))
    check_shown(listing.problems)
    registration = register_instances(listing.instances, worker="w1", domain=DOMAIN, pool=POOL)
    assert not registration.failed, registration.failed
    check_shown(problem for _, problem in registration.problems)


def check_etcd_messages(data: bytes) -> None:
    """An answer of etcd is its message or `MsgspecError`."""
    choices = ByteChoices(data)
    body = choices.encoded(choices.pick(ETCD_ANSWERS))
    for kind in (RangeResponse, TransactionResponse, LeaseGrant, LeaseKeepAlive, AuthToken, WatchMessage):
        with suppress(msgspec.MsgspecError):
            decode_response(body, kind)
    check_shown([etcd_errors.error_from_response(500, body)])


def chosen_records(choices: ByteChoices) -> dict[str, bytes]:
    """Return records of the store under any worker's name: good ones, edited ones, and bytes."""
    found = {}
    for _ in range(1 + choices.number(6)):
        parts, value = choices.pick(RECORDS)
        parts = tuple(choices.text() if choices.number(8) == 7 else part for part in parts)
        whole = choices.text()[:1000] if choices.number(16) == 15 else None
        # The keys of etcd are bytes that are read as UTF-8: half of a surrogate pair never arrives.
        key = (
            record_key(*(part[:1000].encode("utf-8", "replace").decode() for part in parts)) if whole is None else whole
        )
        found[key.encode("utf-8", "replace").decode()] = choices.encoded(value)
    return found


def check_records(data: bytes) -> None:
    """Records of the store are the view or problems, and one that is refused costs no other."""
    good = register_instances(
        [Instance("shop/good/1", "shop/good", "10.1.0.9", {"mesh.routing.port_80": "good.test"})],
        worker="w9",
        domain=DOMAIN,
        pool=POOL,
    )
    own = encode_registration("w9", good.services, good.endpoints)
    records = chosen_records(ByteChoices(data))
    if records.keys() & own.keys():
        return
    view, problems = build_view(records | own)
    check_shown(problems)
    assert good.endpoints[0] in view.endpoints
    assert good.services[0] in view.services or any(service.owner == "shop/good" for service in view.services)


def check_stacks(data: bytes) -> None:
    """The last deploys in the store and the stacks of another worker are values within bounds, or a `ValueError`."""
    with suppress(ValueError):
        deploys = decode_deploys(data)
        assert decode_deploys(encode_deploys(deploys)) == deploys == merge_deploys(deploys, deploys)
    with suppress(ValueError):
        document = bounded_document(data, "w2")
        shown = [text for row in document.services for text in (row.service, row.image, *row.pending, *row.workers)]
        assert all(text.isprintable() for text in shown)
        msgspec.json.encode(document)


def check_settings(data: bytes) -> None:
    """Settings are read, or `SettingsError` says all that is wrong with them."""
    choices = ByteChoices(data)
    environment = {}
    for _ in range(choices.number(4)):
        environment[environment_variable(choices.pick(tuple(SETTINGS)))] = choices.text()
    text = choices.pick(SETTINGS_FILES)
    for _ in range(choices.number(4)):
        section, _, key = choices.pick(tuple(SETTINGS)).partition(".")
        text += f"\n[{section}]\n{key} = {_toml(choices.json(2))}\n"
    at = choices.number(len(text) + 1)
    text = text[:at] + choices.rest().decode("utf-8", "replace") + text[at:]
    try:
        parse_settings(text, environment, hostname="w1")
    except SettingsError as error:
        check_shown((problem.text for problem in error.problems), longest=BUDGET * 8)


def _toml(value: Any) -> str:
    """Return a value as TOML writes it, which is like JSON but for tables and null."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value[:50])) + "]"
    return json.dumps(value) if value is not None else '""'


def saved_view(choices: ByteChoices) -> bytes:
    """Return the bytes of a file with a saved view."""
    records = {key: base64.b64encode(value).decode() for key, value in chosen_records(choices).items()}
    return choices.encoded({"v": 1, "revision": 7, "origin": "abc", "records": records})
