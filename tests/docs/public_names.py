"""Collects every name that users, operators and other programs depend on, from the running code.

One line is one name with its properties: `[dns] ttl = 5 (number), VIPMESH_DNS_TTL`. `public_names.json` lists them, and
`test_public_names.py` compares both. When a module moves or a class is renamed, this file follows; the lines stay.
"""

import argparse
import ast
import asyncio
import configparser
import json
import re
import socket
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints
from urllib.parse import unquote

import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typing_extensions import override

from mesh.api.cluster_events import ClusterEventsDocument
from mesh.api.connectivity.plan import ConnectivityPlan, TargetKind
from mesh.api.connectivity.report import ConnectivityReport, RowState
from mesh.api.connectivity.trace import LossCause
from mesh.api.events import EVENT_NAMES
from mesh.api.explain.document import Cause, Explanation
from mesh.api.explain.query import explain
from mesh.api.metrics.families import METRIC_FAMILIES, MetricsInput, render_metrics
from mesh.api.past_events import PastEventsDocument
from mesh.api.status import WorkerStatus, worker_status
from mesh.api.traffic_history import HistoryDocument
from mesh.cli.doctor import DiagnosisDocument
from mesh.cli.doctor.facts import DoctorFacts
from mesh.cli.doctor.rules import DoctorInput, FindingLevel, host_findings
from mesh.cli.documents import ChangeDocument, CheckDocument, FailureDocument, TeardownDocument
from mesh.cli.parser import build_parser
from mesh.cli.settings import DEFAULT_FILE
from mesh.cli.top_view import TopSnapshot
from mesh.config.labels.reader import KNOWN_LABELS, LABEL_PREFIXES
from mesh.config.settings import SETTINGS, Driver, EndpointAddress, Settings, environment_variable, parse_settings
from mesh.control.dns_zone import ZonePublisher
from mesh.control.planner import make_plan
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.daemon.peer_endpoint import DEFAULT_PEER_PORT as PEER_PORT
from mesh.daemon.resolver import DNS_PORT as RESOLVER_PORT
from mesh.daemon.systemd import SystemdNotifier
from mesh.dataplane.nftables.ruleset import base_chains, base_script
from mesh.dataplane.nftables.service_chain import service_chains
from mesh.dataplane.nftables.traffic_counters import counter_script
from mesh.health.snapshot import HealthSnapshot
from mesh.host.facts import HostFacts
from mesh.host.firewall.facts import USER_CHAIN
from mesh.host.firewall.marking import DEFAULT_MARK, MarkingRules, render_marking
from mesh.host.firewall.plan import wanted_rule
from mesh.host.masquerade import MasqueradeRules, render_script
from mesh.host.vip_interface import MeshInterface
from mesh.model.probe import ProbeKind
from mesh.model.problem import Severity
from mesh.model.request import RequestOutcome
from mesh.model.service import DrainReason, Forwarding, Health, Instance, Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, VirtualKey, VirtualServer
from mesh.platform.logs.reading.document import ServiceLogDocument, WorkerLogDocument
from mesh.platform.logs.ship_state import ShipState
from mesh.platform.stacks.rows import StackHistoryDocument, StacksDocument
from mesh.store import StoreSnapshot
from mesh.store.cached import CachedStore
from mesh.store.sqlite import SqliteStore
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.util.logging.log_format import LogFormat
from meshdns import service_records as dns
from meshdns.rdata import RecordType, ResourceRecord, encode_name
from meshdns.server import QueryCounters
from meshdns.service_records import reverse_domains
from meshdns.zone import ZoneBuilder
from tests.api.http.worker import client, serving, socket_of, until
from tests.builders import POOL
from tests.docs.pages import ROOT
from tests.docs.sample_cluster import DOMAIN, WORKER, cluster, instances, written
from tests.system.e2e.programs import VIPMESH, call

DESCRIPTION = next((ROOT / "mesh" / "api").rglob("openapi.yaml"))
Schema = Mapping[str, Any]

# -------------------------------------------------------------------------------------------------------- configuration


def labels() -> Iterator[str]:
    """Every label under every prefix."""
    yield from (f"{prefix}{name}" for prefix in LABEL_PREFIXES for name in KNOWN_LABELS)


def settings() -> Iterator[str]:
    """Every setting with its default, its type and its environment variable."""
    hints = get_type_hints(Settings)
    defaults = parse_settings("", {}, hostname="HOSTNAME")
    for key in SETTINGS:
        section, _, name = key.rpartition(".")
        attribute = key.replace(".", "_")
        default = getattr(defaults, attribute)
        yield f"[{section}] {name} = {_shown(default)} ({_kind(hints[attribute])}), {environment_variable(key)}"


def words() -> Iterator[str]:
    """Words that users write as values, or that programs compare in what they read."""
    for where, members in (
        ("routing.scheduler", Scheduler),
        ("routing.scheduler_flags", SchedulerFlag),
        ("routing.forwarding", Forwarding),
        ("transport", Transport),
        ("probe kind", ProbeKind),
        ("[dataplane] driver", Driver),
        ("[source.docker] endpoint_address", EndpointAddress),
        ("[log] format", LogFormat),
        ("health", Health),
        ("drain", DrainReason),
        ("cause", Cause),
        ("severity", Severity),
        ("doctor level", FindingLevel),
        ("test kind", TargetKind),
        ("test state", RowState),
        ("test outcome", RequestOutcome),
        ("test lost_cause", LossCause),
    ):
        yield from (f"{where}: {member.value}" for member in members)
    healths = [endpoint.health for service in worker_status(_observed()).services for endpoint in service.endpoints]
    yield from (f"status health: {health}" for health in dict.fromkeys(healths))
    yield from (f"doctor about: {about}" for about in _subjects_of_doctor())
    yield from (f"explain kind: {kind}" for kind in _kinds_of_explanations())


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case range():
            return f"{value.start}-{value.stop - 1}"
        case Mapping() | tuple() if not value:
            return "empty"
        case (str(), int()):
            return f"{value[0]}:{value[1]}"
        case tuple():
            return ", ".join(map(_shown, value))
    return str(value)


def _kind(hint: Any) -> str:
    """A type in words that stay the same when a class is renamed."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        kinds = dict.fromkeys(_kind(each) for each in arguments if each is not type(None))
        return " or ".join([*kinds, *(["none"] if type(None) in arguments else [])])
    if get_origin(hint) is tuple and arguments == (str, int):
        return "address and port"
    if get_origin(hint) is tuple:
        return f"list of {_kind(arguments[0])}"
    if isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping):
        return f"table of {_kind(arguments[1])}"
    if issubclass(hint, Enum):
        return "word"
    if hint.__name__.endswith("Network"):
        return "network"
    return {str: "text", int: "number", range: "range", Path: "path", bool: "switch"}[hint]


def _subjects_of_doctor() -> Iterable[str]:
    text = '[source.docker]\nsocket = "unix:///run/docker.sock"\n[publish]\nports = "30000-40000"'
    host = DoctorFacts(
        "6.12.0",
        root=True,
        host=HostFacts(local_ports=range(32768, 61000)),
        clock=True,
        store={"/var/lib/vipmesh": None},
    )
    found = host_findings(host, DoctorInput(parse_settings(text, {}, hostname="HOSTNAME"), {}, "10.112.0.1"))
    return dict.fromkeys(finding.about for finding in found)


def _kinds_of_explanations() -> Iterable[str]:
    asked = ("web.shop.test", "10.112.0.7", "30080", "10.2.0.1", "shop/web", "unrouted", "nowhere.test")
    return dict.fromkeys(explain(each, DetailedSnapshot(_observed(), DOMAIN)).kind for each in asked)


@cache
def _observed() -> WorkerSnapshot:
    view = cluster()
    unrouted = Instance("docker/0000", "shop/unrouted", "10.2.0.9", {}, name="unrouted")
    planned = make_plan(view, view.health, ["192.0.2.11"])
    probed = {key: health for key, health in view.health.items() if key[0] == WORKER}
    here = (*instances("mesh."), unrouted)
    return WorkerSnapshot(WorkerFacts("1", WORKER, "fake", "a test"), view, here, probed, HealthSnapshot(), planned)


# --------------------------------------------------------------------------------------------------------- command line


def command_line() -> Iterator[str]:
    """Every verb with its arguments and options."""
    yield from _arguments("vipmesh", build_parser())


def _arguments(program: str, of: argparse.ArgumentParser) -> Iterator[str]:
    for action in of._actions:  # noqa: SLF001 (argparse has no public list)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, verb in action.choices.items():
                yield f"{program} {name}"
                yield from _arguments(f"{program} {name}", verb)
            continue
        shown = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        if action.choices is not None:
            shown = f"{{{','.join(map(str, action.choices))}}}"
        elif action.option_strings and action.nargs != 0:
            shown += f" {action.metavar or action.dest.upper()}"
        repeated = {"+": "...", "?": " (optional)"}.get(str(action.nargs), "")
        yield f"{program} {shown}{repeated}"


def exit_statuses() -> Iterator[str]:
    """Exit statuses that docs/cli.md lists, and exit statuses of real runs."""
    documented = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    yield from (f"docs/cli.md: {status}" for status in documented)
    yield from (f"{what}: {status}" for what, (status, _) in ran().items())


def codes() -> Iterator[str]:
    """The codes of messages. A test of its own holds the page against the code."""
    yield from re.findall(r"^### (VM\d+)", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)


COMPOSE = """services:
  web:
    labels: {{ mesh.routing.port_80: {name} }}
    x-endpoints: [10.2.0.1]
"""


@cache
def ran() -> Mapping[str, tuple[int, str]]:
    """Exit status and output of some real runs of the program."""
    with tempfile.TemporaryDirectory() as directory:
        good, bad, broken = (Path(directory) / name for name in ("good.yaml", "bad.yaml", "broken.toml"))
        good.write_text(COMPOSE.format(name="web.test"))
        bad.write_text(COMPOSE.format(name="web.test/path"))
        broken.write_text("[dns]\nttl = 0\n")
        nobody = f"unix://{directory}/nobody.sock"
        runs = {
            "vipmesh --version": ["--version"],
            "vipmesh without a verb": [],
            "vipmesh with an unknown verb": ["nothing"],
            "vipmesh check, a good file": ["check", str(good)],
            "vipmesh check, an error in the file": ["check", "--json", str(bad)],
            "vipmesh check, unusable settings": ["check", "-c", str(broken), "--json", str(good)],
            "vipmesh status, no daemon": ["status", "--admin", nobody, "--json"],
            "vipmesh explain, no daemon": ["explain", "--admin", nobody, "web.test"],
            "vipmesh drain, no daemon": ["drain", "--admin", nobody, "--json", "web-1"],
        }

        async def all_of_them() -> list[tuple[int, str]]:
            return list(await asyncio.gather(*(call(*VIPMESH, *arguments) for arguments in runs.values())))

        return dict(zip(runs, asyncio.run(all_of_them()), strict=True))


# ---------------------------------------------------------------------------------------------- API, JSON, metrics, log


class Live(NamedTuple):
    """Answers of a running admin API."""

    routes: tuple[str, ...]
    status: Any
    explanation: Any
    done: Any
    refusal: Any
    events: tuple[tuple[str, Any], ...]


@cache
def live() -> Live:
    """Start an admin API on a unix socket and ask it for everything."""
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_asked(Path(directory)))


async def _asked(directory: Path) -> Live:
    async with serving(socket_of(directory)) as api, client(directory) as session:
        routes = {
            f"{route.method} {route.resource.canonical}"
            for route in api.routes()
            if route.resource is not None and route.method != "HEAD"
        }

        async def answer(method: str, path: str, **body: str) -> Any:
            async with session.request(method, path, json=body or None) as response:
                return await response.json()

        async with session.get("/v1/events") as response:
            events = await until(response, "flow")
            api.feed.close()
            events += await until(response, "bye")
        return Live(
            tuple(sorted(routes)),
            await answer("GET", "/v1/status"),
            await answer("GET", "/v1/explain?of=a.test"),
            await answer("POST", "/v1/drain", name="web-1"),
            await answer("POST", "/v1/drain", name="nothing"),
            tuple(events),
        )


@cache
def description() -> Schema:
    """The API's description of itself."""
    found: Schema = yaml.safe_load(DESCRIPTION.read_text())
    return found


def api() -> Iterator[str]:
    """Routes, parameters and answers of the admin API, and its events."""
    yield from live().routes
    components = description()["components"]
    for path, methods in description()["paths"].items():
        for method, operation in methods.items():
            route = f"{method.upper()} {path}"
            yield from (f"{route}: {each['in']} {each['name']}" for each in operation.get("parameters", ()))
            for status, response in operation["responses"].items():
                named = components["responses"][response["$ref"].rpartition("/")[2]] if "$ref" in response else response
                yield from (f"{route}: {status} {kind}" for kind in named.get("content", ()))
                if "content" not in named:
                    yield f"{route}: {status}"
    for scheme in components["securitySchemes"].values():
        yield " ".join(["authorization:", scheme["type"], *filter(None, [scheme.get("scheme")])])
    yield from (
        f"event: {name}" for name in dict.fromkeys([*EVENT_NAMES.values(), *(name for name, _ in live().events)])
    )


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document, by its schema and the components that this refers to."""

    schema: Schema
    components: Schema

    def fields(self) -> Iterator[str]:
        """`services[].endpoints[].id: string`, in the order of the schema."""
        yield from self._fields(self.schema, "")

    def strict(self) -> Schema:
        """The schema for a validator, with no field but those that are named."""
        return {**_closed(self.schema), "components": {"schemas": _closed(self.components)}}

    def _fields(self, schema: Schema, path: str) -> Iterator[str]:
        if "$ref" in schema:
            yield from self._fields(self.components[schema["$ref"].rpartition("/")[2]], path)
        elif "anyOf" in schema:
            (kind,) = [each for each in schema["anyOf"] if each != {"type": "null"}]
            for line in self._fields(kind, path):
                yield f"{line} or null" if line.startswith(f"{path}: ") else line
            if "$ref" in kind:
                yield f"{path}: object or null"
        elif "properties" in schema:
            for name, each in schema["properties"].items():
                yield from self._fields(each, f"{path}.{name}" if path else name)
        elif schema.get("type") == "object":
            yield from self._fields(schema["additionalProperties"], f"{path}{{}}")
        elif schema.get("type") == "array":
            yield from self._fields(schema["items"], f"{path}[]")
        else:
            yield f"{path}: {schema.get('type', 'string')}"


def _closed(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        closed = {key: _closed(value) for key, value in schema.items()}
        return closed | {"additionalProperties": False} if "properties" in schema and "type" in schema else closed
    return [_closed(each) for each in schema] if isinstance(schema, list | tuple) else schema


def document(type_: type) -> Document:
    """The document that values of this type are encoded to."""
    (schema,), components = msgspec.json.schema_components([type_], ref_template="#/components/schemas/{name}")
    return Document(schema, components)


def described(name: str) -> Document:
    """The document with this name in the description of the API."""
    components = description()["components"]["schemas"]
    return Document(components[name], components)


def documents() -> Mapping[str, Document]:
    """Every JSON document, by the verb, event or request that it belongs to."""
    return {
        "status": document(WorkerStatus),
        "explain": document(Explanation),
        **{f"event {name}": document(type_) for type_, name in EVENT_NAMES.items()},
        "event bye": described("Bye"),
        "past events": document(PastEventsDocument),
        "past events of all workers": document(ClusterEventsDocument),
        "address of a worker": described("WorkerAddress"),
        "lines of a service": document(ServiceLogDocument),
        "lines of a service on one worker": document(WorkerLogDocument),
        "state of ship": document(ShipState),
        "history": document(HistoryDocument),
        "stacks": document(StacksDocument),
        "deploys of a stack": document(StackHistoryDocument),
        "request of a verb": described("Named"),
        "answer to a verb": described("Done"),
        "refusal": described("Refusal"),
        "plan of a test": document(ConnectivityPlan),
        "test": document(ConnectivityReport),
        "request of a test": described("Tested"),
        "top": document(TopSnapshot),
        "check": document(CheckDocument),
        "doctor": document(DiagnosisDocument),
        "drain, maintenance, undrain, stop": document(ChangeDocument),
        "teardown": document(TeardownDocument),
        "failure of a verb": document(FailureDocument),
    }


def json_fields() -> Iterator[str]:
    """The fields of every JSON document, with their types."""
    yield from (f"{name}: {field}" for name, of in documents().items() for field in of.fields())


def metrics() -> Iterator[str]:
    """Families with their type and labels, and the values of labels that have a closed list of them."""
    for family, _ in METRIC_FAMILIES:
        yield f"{family.name} {family.kind}{{{','.join(family.labels)}}}"
    text = render_metrics(MetricsInput(_observed(), dns=asdict(QueryCounters()))).decode()
    open_lists = {"version", "worker", "data_plane", "service", "release", "le"}
    found: dict[str, None] = {}
    for family_of_text in text_string_to_metric_families(text):
        for sample in family_of_text.samples:
            for label, value in sample.labels.items():
                if label not in open_lists:
                    found[f"{sample.name}: {label} {value}"] = None
    yield from found


def log_fields() -> Iterator[str]:
    """Fields of log lines, read from the source: every key that is put into a variable named `fields`."""
    found: dict[str, None] = {}
    for file in sorted((ROOT / "mesh").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign | ast.AugAssign):
                targets = [node.target]
            for target in targets:
                if isinstance(target, ast.Subscript) and _is_called_fields(target.value):
                    found |= dict.fromkeys(_texts([target.slice]))
                elif _is_called_fields(target) and isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                    inner = [each for each in ast.walk(node) if isinstance(each, ast.Dict)]
                    found |= dict.fromkeys(text for each in inner for text in _texts(each.keys))
    yield from sorted(found)


def _is_called_fields(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "fields"


def _texts(nodes: Iterable[ast.expr | None]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


# ---------------------------------------------------------------------------------------------------------------- store

_PLACEHOLDERS = {
    "<name>": ("web.shop.test", "web.mesh.internal", "dns.shop.test", "jobs.mesh.internal"),
    "<address>": ("10.112.0.7", "10.112.0.8", "10.112.0.9", "fd00:112::9"),
    "<transport>": ("tcp", "udp"),
    "<port>": ("30080", "30001"),
    "<worker>": (WORKER, "worker 2"),
    "<other worker>": ("worker-3",),
    "<owner>": ("shop/web", "shop/dns", "shop/jobs", "api/v1"),
    "<id>": ("docker/8f2c", "docker/9a3d", "docker/7b1e", "shop/dns/10.2.0.3", "a/1"),
}


def store_records() -> Iterator[str]:
    """Keys of records and the fields of their values; the tables of the embedded store."""
    placeholders = {text: shown for shown, texts in _PLACEHOLDERS.items() for text in texts}
    found: dict[str, dict[str, dict[str, None]]] = {}
    for key, value in written().items():
        pattern = "/".join(placeholders.get(part, part) for part in map(unquote, key.split("/")))
        _gather(json.loads(value), "", found.setdefault(pattern, {}))
    for pattern, fields in found.items():
        yield from (f"{pattern}: {_typed(field, kinds)}" for field, kinds in fields.items())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store.db"
        asyncio.run(_make_sqlite_store(path))
        yield from (
            f"file {file.name}" for file in sorted(path.parent.iterdir()) if file.suffix not in {".db-wal", ".db-shm"}
        )
        database = sqlite3.connect(path)
        try:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for column in database.execute(f"PRAGMA table_info({table})"):
                    yield f"sqlite table {table}: {column[1]} {column[2]}"
        finally:
            database.close()


def saved_view() -> Iterator[str]:
    """The fields of the saved view, and the files that belong to it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "view.json"
        content = json.loads(asyncio.run(save_view(StoreSnapshot(7, {"<key>": b"value"}, "origin"), path)))
        yield from (f"file {file.name}" for file in sorted(path.parent.iterdir()))
    content["records"] = {"<key>": "base64"}
    fields: dict[str, dict[str, None]] = {}
    _gather(content, "", fields)
    yield from (_typed(field, kinds) for field, kinds in fields.items())


class OneSnapshot(MemoryStore):
    """A store that answers with one snapshot."""

    def __init__(self, snapshot: StoreSnapshot) -> None:
        super().__init__(MemoryCluster(), WORKER)
        self._snapshot = snapshot

    @override
    async def watch(self) -> AsyncIterator[StoreSnapshot]:
        yield self._snapshot
        await asyncio.Event().wait()


async def save_view(snapshot: StoreSnapshot, path: Path) -> bytes:
    """The content of the file, made from nothing, that saves this snapshot."""
    store = await CachedStore.open(OneSnapshot(snapshot), path)
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(store.run())
            async for _ in store.watch():
                while not path.exists():  # the thread that writes it sets no event
                    await asyncio.sleep(0.01)
                break
            running.cancel()
    finally:
        await store.close()
    return path.read_bytes()


async def load_view(path: Path) -> StoreSnapshot | None:
    """The snapshot that a daemon takes from this file; None if it cannot be read."""
    store = await CachedStore.open(OneSnapshot(StoreSnapshot(0, {})), path)
    try:
        return await store.saved()
    finally:
        await store.close()


async def _make_sqlite_store(path: Path) -> None:
    store = await SqliteStore.open(path, WORKER)
    await store.close()


def _typed(field: str, kinds: Iterable[str]) -> str:
    """`probe.port: number or null`."""
    return f"{field}: {' or '.join(sorted(kinds, key=lambda kind: (kind == 'null', kind)))}"


def _gather(value: Any, path: str, into: dict[str, dict[str, None]]) -> None:
    """Add the type at each path of a JSON value."""
    match value:
        case dict():
            for name, each in value.items():
                _gather(each, f"{path}.{name}" if path else name, into)
        case list():
            for each in value:
                _gather(each, f"{path}[]", into)
        case _:
            kinds = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}
            into.setdefault(path, {})[kinds[type(value)]] = None


# ----------------------------------------------------------------------------------------------------------------- host

_KEY = VirtualKey("10.112.0.7", 80, Transport.TCP)
_STICKY = VirtualServer(
    persistence=300, real_servers={RealKey("10.2.0.1", 8080): RealServer(), RealKey("10.2.0.2", 8080): RealServer(0)}
)


def kernel() -> Iterator[str]:
    """Interfaces and nftables objects, which a new version finds when it takes over from an old one."""
    yield f"interface {MeshInterface().name}"
    yield from dict.fromkeys(_nft_objects(render_script(MasqueradeRules(POOL))))
    yield from dict.fromkeys(_nft_objects(render_marking(MarkingRules(POOL, internal_bridges=(1,)))))
    yield f"chain {USER_CHAIN}: {' '.join(wanted_rule(DEFAULT_MARK).words)}"
    yield from (line for version in (4, 6) for line in _nft_objects("\n".join(base_script(base_chains(version), ()))))
    yield from (line for version in (4, 6) for line in _nft_objects("\n".join(counter_script(version))))
    kept = service_chains(_KEY, _STICKY)
    for name, rules in kept.chains.items():
        yield f"chain {name}"
        yield from (f"chain {name}: comment {rule.comment}" for rule in rules if rule.comment)
    yield from (f"set {name}" for name in kept.clients)


def _nft_objects(text: str) -> Iterator[str]:
    """Tables, chains, sets and maps in a script for nft(8), in both of its notations."""
    table = ""
    for line in text.splitlines():
        if found := re.fullmatch(r"add (?:(table|set|map|chain) )(ip6? \w+)(?: (\w+))?(?: .*)?", line):
            yield " ".join(filter(None, [found[1], found[2], found[3]]))
        elif found := re.fullmatch(r"table (ip6? \w+) \{", line):
            table = found[1]
        elif found := re.fullmatch(r"\t(chain|set) (\w+) \{", line):
            yield f"{found[1]} {table} {found[2]}"


class _Recorder(dict[str, str]):
    """An environment that records the names that are looked up in it."""

    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__(given)
        self.asked: list[str] = []

    @override
    def get(self, key: str, default: Any = None) -> Any:
        self.asked.append(key)
        return super().get(key, default)


def host() -> Iterator[str]:
    """Programs, files, ports, messages to systemd, and the names in deploy/."""
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    yield from (
        f"program {line.partition('=')[0].strip()}"
        for line in package["options.entry_points"]["console_scripts"].split("\n")
        if line
    )
    yield f"settings file {DEFAULT_FILE}"
    yield f"port {PEER_PORT}: [peers] listen = auto"
    yield f"port {RESOLVER_PORT}: [dns] resolver"
    yield from _systemd()
    unit = (ROOT / "deploy" / "vipmesh.service").read_text()
    named = ("Type", "ExecStart", "ExecReload", "User", "Group", "StateDirectory", "RuntimeDirectory")
    yield from (f"deploy/vipmesh.service: {line}" for line in unit.splitlines() if line.partition("=")[0] in named)
    for name, service in yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"].items():
        yield f"deploy/compose.yaml: service {name}, image {service['image']}"
        yield from (f"deploy/compose.yaml: {variable}" for variable in service["environment"])
        yield from (f"deploy/compose.yaml: volume {volume}" for volume in service["volumes"])


def _systemd() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{directory}/notify")
        environment = _Recorder({"NOTIFY_SOCKET": f"{directory}/notify", "WATCHDOG_USEC": "60000000"})
        notify = SystemdNotifier(environment)
        yield from (f"environment {name}" for name in dict.fromkeys(environment.asked))

        async def one_sign_of_life() -> None:
            sent = asyncio.Event()

            def is_alive() -> bool:
                sent.set()
                return True

            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(notify.keep_alive(is_alive))
                await sent.wait()
                running.cancel()

        asyncio.run(one_sign_of_life())
        notify.ready("text")
        notify.reloading()
        notify.stopping()
        for _ in range(4):
            lines = manager.recv(4096).decode().splitlines()
            yield from (f"sd_notify {line if line.endswith('=1') else line.partition('=')[0]}" for line in lines)


# ---------------------------------------------------------------------------------------------------------- name server


def dns_names() -> Iterator[str]:
    """Every record that the name server has for the sample cluster."""
    view = cluster()
    draft = ZoneBuilder([DOMAIN, *reverse_domains(POOL)], ttl=5, serial=1)
    draft.serve_at(["192.0.2.11"])
    named: dict[str, dns.DnsService] = {}
    ZonePublisher(named.update)(make_plan(view, view.health).by_name)
    zone, _ = draft.update(named)
    apexes = [encode_name(DOMAIN), *(encode_name(domain) for domain in reverse_domains(POOL))]
    for name in sorted({*zone.existing, *apexes}, key=lambda name: (_text(name).split(".")[::-1], name)):
        for kind in RecordType:
            found = (
                zone.lookup(name, kind)
                if kind not in (RecordType.OPT, RecordType.AXFR, RecordType.IXFR, RecordType.ANY)
                else None
            )
            yield from (f"{_text(name)} {kind.name} {_data(record)}" for record in (found.records if found else ()))


def _data(record: ResourceRecord) -> str:
    match record.type:
        case RecordType.A | RecordType.AAAA:
            family = socket.AF_INET if record.type == RecordType.A else socket.AF_INET6
            return socket.inet_ntop(family, record.data)
        case RecordType.TXT:
            return " ".join(text.decode() for text in _strings(record.data))
        case RecordType.SRV:
            return f"{int.from_bytes(record.data[4:6])} {_text(record.data[6:])}"
        case RecordType.SOA:
            server = _text(record.data)
            return f"{server} {_text(record.data[len(encode_name(server)) :])}"
    return _text(record.data)


def _text(name: bytes) -> str:
    """A wire name, without what follows it."""
    return ".".join(label.decode() for label in _strings(name[: name.index(0)]))


def _strings(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        yield data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]


COLLECTORS: Mapping[str, Callable[[], Iterable[str]]] = {
    "labels": labels,
    "settings": settings,
    "words": words,
    "command line": command_line,
    "exit statuses": exit_statuses,
    "codes": codes,
    "api": api,
    "json fields": json_fields,
    "metrics": metrics,
    "log fields": log_fields,
    "store records": store_records,
    "saved view": saved_view,
    "kernel": kernel,
    "host": host,
    "dns": dns_names,
}
"""The lines of each section of `public_names.json`."""
