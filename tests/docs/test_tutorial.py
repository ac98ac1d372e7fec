"""The tutorial, typed word for word into three hosts, with a real engine and a real etcd.

What stands in for the reader's world: the hosts are namespaces of one machine, and `busybox` is the image of the tests'
own engine, which has no registry.
"""

import asyncio
import re
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.docs.hosts import Host, host
from tests.docs.pages import ROOT, Block, blocks
from tests.netns import Namespace
from tests.system.docker.engine import IMAGE, Engine, missing
from tests.system.ipvs.endpoints import filter_bridged

PATIENCE = 60.0
"""Seconds until a command shows what the page says."""

pytestmark = pytest.mark.timeout(420)


@pytest.fixture
def engine() -> Iterator[Engine]:
    lacking = missing() or next((f"needs {p}" for p in ("etcd", "dig", "curl") if shutil.which(p) is None), None)
    if lacking is not None:
        pytest.skip(lacking)
    namespace = Namespace()
    namespace.ip(
        "link set lo up", "link add under type bridge", "link set under up", "address add 10.1.0.1/24 dev under"
    )
    engine = Engine(namespace)
    try:
        engine.start()
        engine.import_image()
        engine.docker("tag", IMAGE, "busybox")
        with namespace.entered():
            filter_bridged("0")  # the switch between the hosts is in here, and no host of anybody filters that
        yield engine
    finally:
        engine.close()


@pytest.fixture
def others(engine: Engine) -> dict[str, Namespace]:
    """The networks of the second and the third host."""
    found = {}
    for number in (2, 3):
        there = Namespace()
        engine.namespace.ip(
            f"link add h{number} type veth peer name u0 netns {there.path}",
            f"link set h{number} master under",
            f"link set h{number} up",
        )
        there.ip("link set lo up", f"address add 10.1.0.{number}/24 dev u0", "link set u0 up")
        found[f"w{number}"] = there
    return found


def steps(path: Path = ROOT / "docs" / "tutorial.md") -> Iterator[tuple[Block, tuple[str, ...], str | None]]:
    """Commands, the hosts that they are for, and what they show; None: nothing is said of that."""
    page = [block for block in blocks(path) if block.language in ("sh", "text")]
    for block, after in zip(page, [*page[1:], None], strict=True):
        if block.language == "sh":
            said = re.match(r"# on (.*)\n", block.text)
            assert said is not None, f"{block}: on which host?"
            shown = after.text if after is not None and after.language == "text" else None
            yield block, tuple(re.findall(r"w\d", said[1])), shown


def shows(printed: str, lines: str) -> bool:
    """Whether each of these lines is there, in this order or another; `...` is anything."""
    wanted = [r"\s*" + ".*".join(map(re.escape, re.split(r" ?\.\.\. ?", line.strip()))) for line in lines.splitlines()]
    return all(re.search(f"^{line}\\s*$", printed, re.MULTILINE) for line in wanted)


async def carry_out(block: Block, there: Host, shown: str | None, patience: float = PATIENCE) -> str:
    """Type a block until it shows what the page says; return what it has printed last."""
    status, printed = await there.type(block.text, patience + 30)
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while shown is not None and not shows(printed, shown):
        assert loop.time() < until, f"{block} shows\n{printed}\nand not\n{shown}"
        await asyncio.sleep(0.5)
        status, printed = await there.type(block.text, patience + 30)
    assert status == 0 or "doctor" in block.text, f"{block}: status {status}\n{printed}"
    return printed


async def test_it_works_as_written(engine: Engine, others: dict[str, Namespace], tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hosts = {"w1": await stack.enter_async_context(host("w1", engine.inside, tmp_path / "w1", engine.socket))}
        for name, there in others.items():
            inside = ("nsenter", f"--net={there.path}")
            hosts[name] = await stack.enter_async_context(host(name, inside, tmp_path / name))
        for block, names, shown in steps():
            for name in names:
                await carry_out(block, hosts[name], shown)
