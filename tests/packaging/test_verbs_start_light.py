"""The imports of `status`, `check` and `ps`, which people and scripts run often and wait for."""

import json
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.system.e2e.programs import call

SCRIPT = """
import contextlib, io, sys
from importlib.metadata import packages_distributions
known, before = set(packages_distributions()), set(sys.modules)
from mesh.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(sys.argv[1:])
found = set(sys.modules) - before
import ast, json

def has_code(name):
    return len(ast.parse(open(sys.modules[name].__file__).read()).body) > 1  # more than its docstring

ours = sorted(name for name in found if name.split(".")[0] in ("mesh", "meshdns") and has_code(name))
print(json.dumps([ours, sorted(found), sorted({name.split(".")[0] for name in found} & known - {"mesh", "meshdns"})]))
"""

THIRD_PARTIES = {"status": set[str](), "check": {"_yaml", "yaml"}}
"""Top-level packages that a verb may import."""
MODULES = {"status": 11, "check": 43}
"""How many modules of ours with code in them, at most: as many as before there were packages, and those of the name
policy, of regular files, of the steps in which compose files are read, and of their bounds.
"""
STACK = 'services: {web: {labels: {mesh.routing.port_80: "web.test"}, x-endpoints: [127.0.0.21]}}'


@pytest.mark.parametrize("verb", ["status", "check"])
async def test_a_verb_imports_no_more_than_it_needs(verb: str, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(STACK)
    arguments = {"status": ("--admin", f"unix://{tmp_path}/nobody.sock"), "check": (str(file),)}[verb]
    code, output = await call(sys.executable, "-c", SCRIPT, verb, *arguments)
    assert code == 0, output
    ours, _, others = json.loads(output)
    assert set(others) <= THIRD_PARTIES[verb]
    assert len(ours) <= MODULES[verb], ours


ANSWERED = 18
"""How many modules of ours with code in them a status imports whose daemon is named by settings, and answers."""
SLOW = {"email", "http.client", "json", "ssl", "logging", "shutil", "difflib", "asyncio", "mesh.model.codes"}
"""Modules that take long to import, and which such a status does without."""
STATUS = b'{"version": "1", "worker": "w1", "data_plane": "ipvs", "data_plane_reason": "asked for", "digest": "0a"}'
PATIENCE = 60.0


STACKS = b'{"worker": "w1", "services": []}'


@pytest.mark.parametrize(("verb", "body", "most"), [("status", STATUS, ANSWERED), ("ps", STACKS, ANSWERED)])
async def test_a_verb_that_is_answered_imports_no_more_than_it_needs(
    verb: str, body: bytes, most: int, tmp_path: Path
) -> None:
    file = tmp_path / "vipmesh.toml"
    file.write_text(f'[admin]\nlisten = "unix://{tmp_path}/s"\n')
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(PATIENCE)
        server.bind(f"{tmp_path}/s")
        server.listen()
        thread = threading.Thread(target=_answer, args=(server, body))
        thread.start()
        code, output = await call(sys.executable, "-c", SCRIPT, verb, "-c", str(file))
        thread.join()
    assert code == 0, output
    ours, every, others = json.loads(output)
    assert set(others) <= {"msgspec", "typing_extensions"}
    assert not SLOW & set(every)
    assert len(ours) <= most, ours


def _answer(server: socket.socket, body: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(PATIENCE)
        connection.recv(65536)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
