"""The docs are correct: links have targets, settings and labels are accepted, commands exist."""

import re
import shlex
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from mesh.cli.lint import check_files
from mesh.cli.parser import build_parser
from mesh.config.name_policy import name_policy
from mesh.config.settings import parse_settings
from tests.builders import POOL
from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks

BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_a_target(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = page if not file else (page.parent / file).resolve()
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def each(found: Iterable[Block]) -> list[object]:
    return [pytest.param(block, id=str(block)) for block in found]


@pytest.mark.parametrize("block", each(block for block in BLOCKS if block.language == "toml"))
def test_settings_are_accepted(block: Block) -> None:
    tomllib.loads(block.text)
    parse_settings(block.text, {}, hostname="w1")


COMPOSE = [block for block in BLOCKS if block.language == "yaml" and re.search("^services:", block.text, re.MULTILINE)]
POLICY = name_policy(parse_settings("", {}, hostname="w1"))
MISTAKES = "http://restserver.local/api"
"""In the example of what is refused; `tests/cli/test_check.py` looks at what is said of it."""


@pytest.mark.parametrize("block", each(block for block in COMPOSE if MISTAKES not in block.text))
def test_labels_in_compose_files_are_accepted(block: Block, tmp_path: Path) -> None:
    """All but labels that the page shows as not handled yet."""
    file = tmp_path / "compose.yaml"
    file.write_text(block.text)
    problems = [str(problem) for problem in check_files([file], {}, policy=POLICY, pool=POOL)]
    assert [problem for problem in problems if "not handled yet" not in problem] == []


COMMANDS = sorted(
    {
        found.strip()
        for page in PAGES
        for found in re.findall(r"(?m)(?:^ {4,}|^\$ |`|&& )(vipmesh [a-z]+(?![a-z:])[^`|>&\n]*)", page.read_text())
    }
)
NEEDS = {
    "explain": "x",
    "logs": "x",
    "drain": "x",
    "undrain": "x",
    "stop": "x",
    "maintenance": "x",
    "weight": "x reset",
    "workers remove": "w1",
    "deploy": "x",
    "deploy --init": "x",
    "check": "x",
    "completion": "bash",
    "cluster certs": "w1",
    "cluster revoke": "w1",
    "claims": "list",
    "rollout": "status x",
    "rollout status": "x",
    "rollout share": "x reset",
    "rollout promote": "x",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *rest = shlex.split(re.split(r"  | #", command)[0])[1:]
    if needed := NEEDS.get(" ".join((verb, *rest))):  # named in a sentence, without what it needs
        rest += needed.split()
    if re.search(r"[A-Z]{3}|\[|\|", command):  # as in `vipmesh drain NAME`
        rest = ["--help"]
    try:
        build_parser().parse_args([verb, *rest])
        status: object = 0
    except SystemExit as end:
        status = end.code
    assert not status, capsys.readouterr().err
