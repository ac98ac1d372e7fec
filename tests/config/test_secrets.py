"""Secrets that others can read: on the network, or in files of this host."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.cli.settings import load_settings
from mesh.config.secrets import secret_files, secrets_in_clear
from mesh.config.settings import Settings, parse_settings
from mesh.daemon.host_needs import host_needs
from mesh.host.fact_reader import HostFactReader
from mesh.host.host_problems import host_problems
from mesh.util.regular_file import world_readable

TOKENS = "[admin]\ntoken_file = '/t'\n"


def read(text: str) -> Settings:
    return parse_settings(text, {}, hostname="w1", file="/etc/vipmesh.toml")


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("", []),
        ("[store]\nurl = 'etcd://h1:2379/v'", []),
        ("[store]\nurl = 'etcd://h1:2379/v'\nuser = 'u'\npassword = 'secret'", ["[store] password"]),
        ("[store]\nurl = 'etcd://127.0.0.1:2379,192.0.2.1:2379/v'\nuser = 'u'\npassword = 'x'", ["[store] password"]),
        ("[store]\nurl = 'etcd://[2001:db8::1]:2379/v'\nuser = 'u'\npassword = 'secret'", ["[store] password"]),
        ("[store]\nurl = 'etcd://127.0.0.1:2379,[::1]:2379,localhost/v'\nuser = 'u'\npassword = 'secret'", []),
        ("[store]\nurl = 'etcds://h1:2379/v'\nuser = 'u'\npassword = 'secret'", []),
        ("[store]\nurl = 'sqlite:////s.db'\nuser = 'u'\npassword = 'secret'", []),
        (f"{TOKENS}tcp = '192.0.2.1:9780'", ["[admin] tcp"]),
        (f"{TOKENS}tcp = '0.0.0.0:9780'", ["[admin] tcp"]),
        (f"{TOKENS}tcp = '[::]:9780'", ["[admin] tcp"]),
        (f"{TOKENS}listen = '192.0.2.1:9780'", ["[admin] listen"]),
        ("[admin]\nread_token_file = '/t'\ntcp = '192.0.2.1:9780'", ["[admin] tcp"]),
        (f"{TOKENS}tcp = '127.0.0.1:9780'", []),
        (f"{TOKENS}tcp = '[::1]:9780'", []),
        (f"{TOKENS}tcp = '192.0.2.1:9780'\ncert = '/c'", []),
        ("[admin]\ntcp = '192.0.2.1:9780'\ncert = '/c'\nclient_ca = '/a'", []),
    ],
)
def test_a_secret_in_the_clear_is_a_problem_with_its_remedy(text: str, subjects: list[str]) -> None:
    problems = secrets_in_clear(read(text))
    assert [problem.subject for problem in problems] == subjects
    assert all(problem.remedy and problem.code.value == "VM665" for problem in problems)
    assert "secret" not in "".join(map(str, problems)), "the password itself is in no message"


def test_files_with_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vipmesh.toml"
    file.write_text(
        "[store]\nurl = 'etcds://h/v'\nuser = 'u'\npassword = 'secret'\ncert = '/store.pem'\nkey = '/store.key'\n"
        "[admin]\ntoken_file = '/t'\nread_token_file = '/r'\ncert = '/admin.pem'\n"
    )
    others = {"/t", "/r", "/admin.pem", "/store.key"}
    assert {str(each) for each in secret_files(load_settings(file))} == {str(file), *others}
    monkeypatch.setenv("VIPMESH_STORE_PASSWORD", "from-outside")
    assert {str(each) for each in secret_files(load_settings(file))} == others, "the password is not that of the file"
    assert secret_files(read("[dns]\nttl = 5")) == {}


def test_which_files_every_user_may_read(tmp_path: Path) -> None:
    open_file, closed = tmp_path / "open", tmp_path / "closed"
    for file, mode in ((open_file, 0o644), (closed, 0o640)):
        file.write_text("x")
        file.chmod(mode)
    assert world_readable([open_file, closed, tmp_path / "none"]) == {open_file}


async def test_the_daemon_reports_them_until_they_are_corrected(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 20)
    token.chmod(0o644)
    settings = read(f"[admin]\ntoken_file = '{token}'\ntcp = '192.0.2.1:9780'")
    reader, needs = HostFactReader(settings.vip_pool, secrets=secret_files(settings)), host_needs(settings, "userspace")

    async def found() -> list[str]:
        facts = replace(await reader.read(), routes=(), addresses=())
        return [str(p) for p in host_problems(facts, needs) if p.code.value in ("VM665", "VM666")]

    clear, readable = await found()
    assert "clients send their token to 192.0.2.1:9780 unencrypted; set [admin] cert and key" in clear
    assert f"every user of this host may read it; run `chmod o-rwx {token}`" in readable
    token.chmod(0o640)
    assert await found() == [clear]


def test_check_reports_them_as_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, stack = tmp_path / "vipmesh.toml", tmp_path / "compose.yaml"
    settings.write_text("[store]\nurl = 'etcd://h1/v'\nuser = 'u'\npassword = 'hunter2-and-more'\n")
    settings.chmod(0o644)
    stack.write_text("services: {}\n")
    assert main(["check", str(stack), "-c", str(settings), "--json"]) == 0
    shown = capsys.readouterr().out
    assert [problem["code"] for problem in json.loads(shown)["problems"]] == ["VM665", "VM666"]
    assert "hunter2" not in shown
    settings.chmod(0o600)
    assert main(["check", str(stack), "-c", str(settings)]) == 0
    assert "0 errors, 1 warnings" in capsys.readouterr().out
