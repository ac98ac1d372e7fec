"""The files of the page as they are served: with their content security policy, without a token, compressed."""

import re
from pathlib import Path

import pytest

from mesh.model.codes import Code
from tests.api.http.worker import client, serving, socket_of

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "mesh" / "api" / "http" / "static"
NAMES = sorted(file.name for file in STATIC.iterdir())
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in NAMES)])
async def test_each_file_has_its_content_type_and_security_policy(path: str, tmp_path: Path) -> None:
    name = path.rpartition("/")[2] or "index.html"
    async with serving(socket_of(tmp_path)), client(tmp_path) as session:
        async with session.get(path) as answer:
            assert answer.status == 200
            assert await answer.read() == (STATIC / name).read_bytes()
            assert (answer.content_type, answer.charset) == (KINDS[Path(name).suffix], "utf-8")
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; ")
            assert "require-trusted-types-for 'script'" in policy
            assert "unsafe" not in policy
            assert "*" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            tag = answer.headers["ETag"]
        async with session.get(path, headers={"If-None-Match": tag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/", "/page/..%2fadmin.py", "/page/../admin.py", "/page"])
async def test_no_other_file_is_served(path: str, tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)), client(tmp_path) as session, session.get(path) as answer:
        assert answer.status == 404


def test_the_page_names_only_its_own_files_and_each_of_them() -> None:
    named = set()
    for file in STATIC.iterdir():
        text = file.read_text()
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)\S+", text), f"{file.name} names another host"
        named |= set(re.findall(r'"/page/([\w.]+)"', text)) | set(re.findall(r'from "\./([\w.]+)"', text))
    assert named | {"index.html"} == {*NAMES, "codes.json"}


async def test_every_code_leads_to_its_meaning(tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)), client(tmp_path) as session, session.get("/page/codes.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        found = await answer.json()
    assert found == {str(code): {"title": code.title, "text": code.explanation} for code in Code}


def test_every_module_is_preloaded() -> None:
    """So that the first paint waits for one round of requests, not for one of each level of imports."""
    told = re.findall(r'<link rel="modulepreload" href="/page/([\w.]+)">', (STATIC / "index.html").read_text())
    assert {*told, "main.js"} == {name for name in NAMES if name.endswith(".js")}


def test_no_script_turns_text_into_markup() -> None:
    """The policy would stop it in the browser; here it does not even come so far."""
    for file in STATIC.glob("*.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", file.read_text()
        )
        assert not found, file.name
