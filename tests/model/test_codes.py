"""Codes of messages: every message in the sources has one, every code has messages and a paragraph in the docs."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mesh.cli.doctor import rules as doctor
from mesh.model.codes import CODES, code_of, coded

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "errors.md").read_text()
PARAGRAPHS = dict(re.findall(r"^### (VM\d{3}) .*?\n\n(.*?)(?=\n#|\Z)", DOCS, re.MULTILINE | re.DOTALL))

RAISED = "Refused Interpolation Yaml Start Store DataPlane NameServer Admin Token Host Sysctl Settings Refusal Nft"
CALLED = frozenset(
    {
        *(f"{name}Error" for name in RAISED.split()),
        "NoAnswerError",
        "UnreachableError",
        "_RefusedError",
        "Problem",
        "Failure",
    }
)
METHODS = frozenset({"warn", "refuse", "_refuse", "_warn", "_error"})
LOGGED = frozenset({"warning", "error", "critical"})
IN_SETTINGS = frozenset({"mesh/config/settings.py", "mesh/config/values.py", "mesh/config/etcd_url.py"})
PASSED_ON = frozenset(
    {
        "admin API: /x",  # what the token, or the certificate, says
        "/x/x",  # the name server's own words, with a way out
        "/x: /x",  # an operation that was refused, and why
        "data plane: /x: /x",
        "probes: /x",  # what is suspected
        "settings: /x",
        "answers /x: /x",  # one member of etcd, inside of what all of them say
        "ended the watch",
        "/x, label /x; /x is already claimed by service /x (/x)",  # a name, a VIP or a published port
        '"/x": /x',
        "/x is not /x",  # a data plane driver, and so on
        "service /x",
        "/x, label /x",
        "container /x",
        "the file",
        "write auto or a number from 1 to 65535",
        "give it a name with a label /x<container port>",
    }
)
"""Messages that only pass on what another one says, which has a code."""


def templates(node: ast.expr | None, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The texts that an expression can be, `/x` for what is filled in; empty: it is not seen from here."""
    match node:
        case ast.Constant(value=str(text)):
            return [re.sub(r"%[.\d]*[sdfrg]", "/x", text)]
        case ast.JoinedStr(values=values):
            return ["".join(v.value if isinstance(v, ast.Constant) else "/x" for v in values)]  # type: ignore[misc]
        case ast.IfExp(body=body, orelse=otherwise):
            return [*templates(body, known), *templates(otherwise, known)]
        case ast.BinOp(left=left, right=right, op=ast.Add()):
            ends = templates(right, known) or ["/x"]
            return [before + after for before in templates(left, known) for after in ends]
        case ast.Tuple(elts=elements):
            return [text for element in elements for text in templates(element, known)]
        case ast.Name(id=name):
            return list(known.get(name, ()))
    return []


def assigned(function: ast.AST) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).extend(templates(node.value, {}))
    return found


def messages(source: str, file: str) -> Iterator[str]:
    """Every message that a file can raise, log or find; where a remedy is apart, with it."""
    tree = ast.parse(source)
    constants = assigned(ast.Module([n for n in tree.body if isinstance(n, ast.Assign)], []))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        known = {**constants, **assigned(function)}
        for call in (n for n in ast.walk(function) if isinstance(n, ast.Call)):
            match call.func:
                case ast.Name(id=name) if name in CALLED or (name == "ValueError" and file in IN_SETTINGS):
                    arguments = call.args
                case ast.Attribute(attr=name, value=ast.Name(id="log")) if name in LOGGED:
                    arguments = call.args[:1]
                case ast.Attribute(attr=name, value=ast.Name()) if name in METHODS:
                    arguments = call.args
                case _:
                    continue
            found = [templates(argument, known) for argument in arguments]
            texts = [texts for texts in found if texts]
            if not texts:
                continue
            # all that it says, the reason and the remedy among it, in each of the ways in which it can be put
            for variant in range(max(map(len, texts))):
                yield "; ".join(texts[min(variant, len(texts) - 1)] for texts in texts)


SOURCES = [path for folder in ("mesh", "dns/meshdns") for path in sorted((ROOT / folder).rglob("*.py"))]
MESSAGES = [
    pytest.param(file, message, id=f"{file}: {message[:60]}")
    for path in SOURCES
    if "testing" not in path.parts and (file := str(path.relative_to(ROOT))) != "mesh/cli/doctor/rules.py"
    for message in dict.fromkeys(messages(path.read_text(), file))
]


@pytest.mark.parametrize(("file", "message"), MESSAGES)
def test_every_message_has_a_code(file: str, message: str) -> None:
    if message in PASSED_ON or all(part.strip() in {"/x", "%s", ""} for part in message.split(";")):
        return
    among = "VM3" if file in IN_SETTINGS else "VM"
    assert code_of(message, among), f"{file} says {message!r}: add words of it to mesh/codes/, and docs/errors.md"


def test_all_words_are_said_somewhere() -> None:
    said = [text for path in SOURCES for text in texts(path) if "codes" not in path.parts]
    idle = [
        (code, words)
        for code, (_, every) in CODES.items()
        for words in every
        if words not in OF_OTHERS and not all(any(part in text for text in said) for part in re.split("{}|; ", words))
    ]
    assert not idle, "\n".join(map(str, idle))


OF_OTHERS = (
    "does not appear to be an IPv4",
    "has host bits set",
    "is not a data plane driver",
    "is not an address of endpoints",
)
"""What Python's own ipaddress says of a value, and what is put together from a kind of choice."""


def texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        yield from templates(node, {}) if isinstance(node, ast.expr) else ()


def test_the_docs_have_a_paragraph_for_each_code_and_no_other() -> None:
    headings = dict(re.findall(r"^### (VM\d{3}) (.*)$", DOCS, re.MULTILINE))
    assert headings == {code: title for code, (title, _) in CODES.items()}
    assert {code for code, text in PARAGRAPHS.items() if len(text.strip()) < 80} == set()
    assert list(headings) == sorted(headings), "a reader looks for a number"


def test_what_doctor_is_about_has_a_code() -> None:
    assert set(doctor.CODES.values()) == {code for code in CODES if code.startswith("VM8")}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('c.yaml:5: error: service a, label x: "http://a.b/c" has a path, and the mesh routes ...; write', "VM111"),
        ("error: service shop/web: the name a.b is held by shop/api; give it a name of its own", "VM201"),
        ('c.yaml:6: error: service a: the name "*.local" is a wildcard; write every name in full', "VM110"),
        ("compose.yaml: error: the file: it cannot be read: No such file; name a file that exists and", "VM150"),
        ("store: etcd does not serve (h1: no answer within 2 s); see; the last good state stays in force", "VM401"),
        ("data plane: this kernel offers no IPVS: `modprobe ip_vs`; the last good state stays in force", "VM501"),
        ("store /var/lib/vipmesh/store.db is in use by process 7; stop it", "VM404"),
        ("net.ipv4.ip_forward must be 1: it is 0 and cannot be written: on the host, write", "VM550"),
        (
            "host 1: source NAT cannot be set up, replies are lost: there is no program nft; the last good state",
            "VM551",
        ),
        ("all is well", None),
    ],
)
def test_the_code_of_what_users_have_seen(message: str, code: str | None) -> None:
    assert code_of(message) == code
    assert coded(message) == (message if code is None else f"{message} [{code}]")
    assert coded(coded(message)) == coded(message)


def test_settings_have_codes_of_their_own() -> None:
    line = "vipmesh.toml: [dns] listen: '127.0.0.1' has no port; write"
    assert (code_of(line), code_of(line, "VM3")) == ("VM120", "VM302")
    assert coded("what nobody has said", "VM3", "VM302").endswith(" [VM302]")
