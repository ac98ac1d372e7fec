"""Codes of messages: each message carries one from where it is raised, and the docs explain each code."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.cli.doctor import rules as doctor
from mesh.cluster.claims import plan_claims
from mesh.config.labels.parse import parse_labels
from mesh.config.settings import parse_settings
from mesh.control.conditions import LoopConditions
from mesh.model.claims import Claims
from mesh.model.codes import Code, errors_page
from mesh.model.errors import CodedText, MeshError, SettingsError
from mesh.model.service import PortPublication, Route, Service, Transport
from mesh.sources.compose.parse import read_compose_file
from mesh.store import StoreError
from mesh.store.etcd.errors import error_from_exception, error_from_members, error_from_response
from mesh.util.logging.formats import LineFormatter
from mesh.util.nft import explain_refusal
from meshdns.log_codes import LogCode

ROOT = Path(__file__).parents[2]
SOURCES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in ("mesh", "dns/meshdns")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "testing" not in path.parts
}
LOGGED = frozenset({"warning", "error", "critical", "exception"})
BRING_THEIR_CODE = frozenset(
    {
        "ComposeReferenceError",
        "EnvFileError",
        "EtcdUnreachableError",
        "FleetConflictError",
        "FleetNoQuorumError",
        "FleetRefusedError",
        "FleetUnavailableError",
        "LogSinkError",
        "SettingsError",
        "ShipSettingsError",
        "StackValueError",
    }
)
"""Errors whose constructor knows the code, or gets it with each of several messages."""


def mesh_errors() -> frozenset[str]:
    """The names of the classes that derive from `MeshError`."""
    classes = [node for tree in SOURCES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found = {"MeshError"}
    for _ in classes:  # a class may come before its base
        found |= {
            node.name for node in classes if found & {base.id for base in node.bases if isinstance(base, ast.Name)}
        }
    return frozenset(found)


def has_code(expression: ast.expr) -> bool:
    """Whether it names a code, or passes one on: `Code.X`, `error.code`, `code`."""
    names = [node.id for node in ast.walk(expression) if isinstance(node, ast.Name)]
    attributes = [node.attr for node in ast.walk(expression) if isinstance(node, ast.Attribute)]
    return bool({"Code", "LogCode", "code"} & {*names, *attributes})


def calls() -> Iterator[tuple[str, ast.Call]]:
    for file, tree in SOURCES.items():
        yield from ((f"{file}:{node.lineno}", node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def writes_text(call: ast.Call) -> bool:
    """Whether an argument is text that is written there; without, the class makes its message of what it is given."""
    return any(isinstance(each, ast.JoinedStr | ast.Constant) for each in call.args) or len(call.args) > 1


def test_every_problem_has_a_code() -> None:
    made = [(where, c) for where, c in calls() if isinstance(c.func, ast.Name) and c.func.id == "Problem"]
    assert made
    assert [where for where, call in made if not has_code(call.args[0])] == []


def test_every_error_that_users_meet_has_a_code() -> None:
    errors = mesh_errors()
    assert {"StoreError", "DataPlaneError", "StartError", "SettingsError", "NftError", "SysctlError"} <= errors
    made = [
        (where, call)
        for where, call in calls()
        if isinstance(call.func, ast.Name) and call.func.id in errors - BRING_THEIR_CODE and writes_text(call)
    ]
    assert [where for where, call in made if not has_code(call.args[0])] == []


def test_every_warning_in_the_log_has_a_code() -> None:
    made = [
        (where, call)
        for where, call in calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in LOGGED
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "log"
    ]
    assert made
    extras = [(where, {word.arg: word.value for word in call.keywords}.get("extra")) for where, call in made]
    assert [where for where, extra in extras if extra is None or not has_code(extra)] == []


def test_every_code_is_used() -> None:
    used = {
        node.attr
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    }
    of_names = {code.value for code in LogCode}
    assert {code.name for code in Code if code.value not in of_names} <= used
    assert used <= set(Code.__members__)


def test_the_codes_of_the_name_server_are_among_all_codes() -> None:
    assert {code.value for code in LogCode} <= {code.value for code in Code}


def test_codes_have_the_documented_form_and_order() -> None:
    values = [code.value for code in Code]
    assert all(re.fullmatch(r"VM[1-9]\d\d", value) for value in values)
    assert values == sorted(values), "a reader looks for a number"
    assert {code for code in Code if len(code.explanation) < 80} == set()


def test_the_page_of_errors_is_generated_from_the_codes() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert page == errors_page(), "write it again: python -m mesh.model.codes > docs/errors.md"


def test_every_finding_of_doctor_has_a_code() -> None:
    assert set(doctor.CODES.values()) == {code for code in Code if code.value.startswith("VM8")}


def test_an_error_shows_one_code_for_each_problem() -> None:
    error = StoreError(Code.STORE_IN_USE, "store /x is in use by process 7; stop it")
    assert [line.line for line in error.lines] == ["store /x is in use by process 7; stop it [VM404]"]
    several = SettingsError([CodedText("a", Code.UNKNOWN_SETTING), CodedText("b", Code.SETTING_VALUE)])
    assert (str(several), [line.line for line in several.lines]) == ("a\nb", ["a [VM301]", "b [VM302]"])


# ------------------------------------------------------------------------------- real messages and their codes


WEB = {"mesh.routing.port_80": "web"}


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ({"mesh.routing.prot_80": "web"}, Code.UNKNOWN_LABEL),
        ({**WEB, "mesh.auto_scaling.max_connections": "70"}, Code.LABEL_NOT_SUPPORTED),
        ({**WEB, "mesh.auto_scaling.step": "2"}, Code.LABEL_WITHOUT_EFFECT),
        ({**WEB, "mesh.auto_scaling.max_cpu": "x"}, Code.SCALING_LABEL),
        (
            {**WEB, "mesh.auto_scaling.max_cpu": "70", "mesh.auto_scaling.target_cpu": "50"},
            Code.SCALING_LABELS_CONTRADICT,
        ),
        ({**WEB, "mesh.auto_scaling.schedule": "daily min=1"}, Code.SCALING_SCHEDULE),
        ({**WEB, "aliyun.routing.port_80": "api"}, Code.LABEL_DIFFERS_BY_PREFIX),
        ({"mesh.routing.weight": "2"}, Code.LABEL_WITHOUT_EFFECT),
        ({"mesh.routing.port_0": "web"}, Code.LABEL_PORT),
        ({"mesh.routing.port_80/icmp": "web"}, Code.LABEL_PORT),
        ({"mesh.routing.port_80": "*.local"}, Code.NOT_A_DNS_NAME),
        ({"mesh.routing.port_80": "web:0"}, Code.LABEL_PORT),
        ({"mesh.routing.port_80": "http://a.b/c"}, Code.NAME_WITH_PATH_OR_SCHEME),
        ({**WEB, "mesh.routing.port_81": "api:80"}, Code.LISTEN_PORT_CLASH),
        (
            {"mesh.routing.publish.port_80": "1080", "mesh.routing.publish.port_81": "1080"},
            Code.PUBLISHED_PORT_CLASH,
        ),
        ({**WEB, "mesh.routing.publish.port_80": "x"}, Code.LABEL_PORT),
        ({**WEB, "mesh.routing.vip": "ten"}, Code.FIXED_VIP_UNUSABLE),
        ({**WEB, "mesh.routing.scheduler": "best"}, Code.SCHEDULER_OR_FLAGS),
        ({**WEB, "mesh.routing.scheduler_flags": "port"}, Code.SCHEDULER_OR_FLAGS),
        ({**WEB, "mesh.routing.forwarding": "teleport"}, Code.FORWARDING_METHOD),
        ({"mesh.routing.port_80": "web:8080", "mesh.routing.forwarding": "direct"}, Code.FORWARDING_METHOD),
        ({**WEB, "mesh.routing.weight": "1001"}, Code.VALUE_OUT_OF_RANGE),
        ({**WEB, "mesh.routing.session_sticky": "2s"}, Code.VALUE_OUT_OF_RANGE),
        (
            {**WEB, "mesh.routing.max_connections": "2", "mesh.routing.min_connections": "3"},
            Code.VALUE_OUT_OF_RANGE,
        ),
        ({**WEB, "mesh.routing.release": "-"}, Code.RELEASE_NAME),
        ({**WEB, "mesh.probe.url": "http://elsewhere/"}, Code.PROBE_UNUSABLE),
        ({**WEB, "mesh.probe.url": "tcp://container"}, Code.PROBE_UNUSABLE),
        (
            {**WEB, "mesh.probe.url": "tcp://container:80", "mesh.probe.timeout_seconds": "60"},
            Code.PROBE_LONGER_THAN_INTERVAL,
        ),
        ({**WEB, "mesh.probe.cmd": "true"}, Code.PROBE_COMMAND_WITHOUT_ENGINE),
        ({"mesh.routing.port_80": "web;web"}, Code.WRITTEN_TWICE),
        ({**WEB, "mesh.probe.url": "http://container/", "mesh.probe.method": "PUT"}, Code.PROBE_REQUEST_OR_EXPECTATION),
    ],
)
def test_codes_of_label_problems(labels: dict[str, str], code: Code) -> None:
    parsed = parse_labels(labels, owner="shop/web", subject="service web", domain="test", commands=False)
    assert [problem.code for problem in parsed.problems] == [code]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[dns]\nlsten = 1", Code.UNKNOWN_SETTING),
        ("[admin]\nlisten = '127.0.0.1'", Code.SETTING_VALUE),
        ("[vip]\npool = 'ten'", Code.SETTING_VALUE),
        ("[dns.forward]\n'a.example' = []", Code.SETTING_VALUE),
        ("[store]\nurl = 'etcd://u:p@h1'", Code.SETTING_VALUE),
        ("[dns", Code.SETTINGS_FILE_UNUSABLE),
        ("[dns]\nupstream = '127.0.0.1'", Code.SETTINGS_CONTRADICT),
        ("[dns.forward]\n'a.mesh.internal' = ['192.0.2.1']", Code.SETTINGS_CONTRADICT),
        ("[admin]\nlisten = '192.0.2.1:9780'", Code.ADMIN_API_UNPROTECTED),
    ],
)
def test_codes_of_settings_problems(text: str, code: Code) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, {}, hostname="w1")
    assert [problem.code for problem in caught.value.problems] == [code]
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", Code.COMPOSE_STRUCTURE),
        ("a: [", Code.COMPOSE_NOT_YAML),
        ("services: {a: 1}", Code.COMPOSE_STRUCTURE),
        ("services: {a: {labels: [x=1, x=2]}}", Code.WRITTEN_TWICE),
        ("include: [x]\nservices: {}", Code.COMPOSE_NOT_FOLLOWED),
        ("services: {a: {labels: {mesh.routing.release: 1.10}}}", Code.COMPOSE_VALUE_CHANGED_BY_YAML),
        ("services: {a: {labels: {a: '${B}'}}}", Code.COMPOSE_VARIABLE),
        ("services: {a: {labels: {a: '${B'}}}", Code.COMPOSE_VARIABLE),
        ("services: {a: {x-endpoints: [web]}}", Code.COMPOSE_ENDPOINT_ADDRESS),
        ("services: {a: {x-endpoints: ['10.0.0.1:0']}}", Code.LABEL_PORT),
    ],
)
def test_codes_of_compose_file_problems(text: str, code: Code) -> None:
    assert [problem.code for problem in read_compose_file(text, "c.yaml", {}).problems] == [code]


@pytest.mark.parametrize(
    ("service", "claims", "code"),
    [
        (
            Service("shop/web", "a.b", (Route("a.b", 80, Transport.TCP, 80),)),
            Claims({}, {"a.b": "x/y"}),
            Code.NAME_TAKEN,
        ),
        (Service("shop/web", "a.b", (), fixed_vip="10.9.0.2"), Claims(), Code.VIP_TAKEN),
        (
            Service("shop/web", "a.b", (), fixed_vip="10.1.0.2"),
            Claims({"c.d": "10.1.0.2"}, {}, {}, {"10.1.0.2": "c.d"}),
            Code.VIP_TAKEN,
        ),
        (
            Service("shop/web", "a.b", (), (PortPublication(80, Transport.TCP, 30000),)),
            Claims({}, {}, {(Transport.TCP, 30000): ("c.d", 80)}),
            Code.PUBLISHED_PORT_TAKEN,
        ),
        (
            Service("shop/web", "a.b", (), (PortPublication(80, Transport.TCP, None),)),
            Claims({}, {}, {(Transport.TCP, 30000): ("c.d", 80)}),
            Code.POOL_EXHAUSTED,
        ),
    ],
)
def test_codes_of_refused_claims(service: Service, claims: Claims, code: Code) -> None:
    other = Service("x/y", "e.f", (Route("a.b", 80, Transport.TCP, 80),))
    claims = replace(claims, owners={"a.b": "shop/web", **claims.owners})
    _, problems = plan_claims((service, other), claims, pool=ip_network("10.1.0.0/24"), ports=range(30000, 30001))
    assert code in [problem.code for problem in problems if problem.owner == "shop/web"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (error_from_response(404, b""), Code.STORE_UNREACHABLE),
        (error_from_response(500, b"odd"), Code.STORE_UNREACHABLE),
        (error_from_response(403, b'{"code": 7, "message": "etcdserver: permission denied"}'), Code.STORE_REFUSES),
        (error_from_exception(TimeoutError(), 2), Code.STORE_UNREACHABLE),
        (error_from_members({"h1": error_from_exception(TimeoutError(), 2)}), Code.STORE_UNREACHABLE),
        (explain_refusal("Operation not permitted"), Code.NOT_PERMITTED),
        (explain_refusal("Could not process rule"), Code.NFT_FAILED),
    ],
)
def test_codes_of_errors_from_other_programs(error: MeshError, code: Code) -> None:
    assert error.code is code


def test_a_forwarded_error_keeps_its_code(caplog: pytest.LogCaptureFixture) -> None:
    journal = LoopConditions()
    journal.froze("store", StoreError(Code.STORE_REFUSES, "etcd refuses: no; ask"))
    assert journal.frozen["store"].line == "etcd refuses: no; ask [VM402]"
    (record,) = caplog.records
    assert (
        LineFormatter()
        .format(record)
        .endswith("store: etcd refuses: no; ask; the last good state stays in force [VM402]")
    )
