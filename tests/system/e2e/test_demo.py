"""The demo for a new user: the printed commands work, a failed instance is removed, Ctrl-C ends it."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_check import SNIPPET
from tests.netns import private_network
from tests.system.e2e.programs import Program, call, vipmesh

UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]


@pytest.fixture(autouse=True)
def _ports() -> Iterator[None]:
    """The demo's ports are always the same: where we may, nobody else has them."""
    if os.geteuid() == 0:
        with private_network():
            yield
    else:
        yield


async def printed_lines(demo: Program) -> list[str]:
    """The commands that the demo tells to try."""
    await demo.line(r"Try in another terminal")
    await demo.line(r"^  dig ")
    dig = demo.output[-1].strip()
    await demo.line(r"^  curl http://1")
    curl = demo.output[-1].strip()
    await demo.line(r"^  curl http://\$\(")
    both = demo.output[-1].strip()
    await demo.line(r"vipmesh status")
    return [dig, curl, both, demo.output[-1].strip()]


@pytest.mark.timeout(120)
async def test_the_demo_from_start_to_end() -> None:
    async with vipmesh("demo") as demo:
        arrow = await demo.line(r"(\S+)  ->  VIP (\S+), port (\d+)  ->  (\S+), (\S+)")
        name, vip, port, first, second = arrow.groups()
        assert name == "restserver.local"
        dig, curl, both, show = await printed_lines(demo)

        link = await demo.line(r"^  (http://127\.0\.0\.1:9780/)#token=(\w+)$")
        ask = ("curl", "-s", "-H", f"Authorization: Bearer {link[2]}", f"{link[1]}metrics")

        code, output = await call("sh", "-c", dig)
        assert code == 0
        assert re.search(rf"^restserver\.local\.\s+5\s+IN\s+A\s+{re.escape(vip)}$", output, re.MULTILINE), output
        assert "status: NOERROR" in output
        await demo.line(r"all 2 instances have answered their first probe")
        answers = {(await call("sh", "-c", f"{curl} -s --max-time 3"))[1] for _ in range(6)}
        assert answers == {f"hello from {first}\n", f"hello from {second}\n"}
        code, output = await call("sh", "-c", f"{both} -s --max-time 3")
        assert code == 0, output
        assert output in answers

        _, output = await call(*ask)
        counted = re.search(r'(?m)^vipmesh_service_connections_total{service="restserver\.local"} (\d+)$', output)
        assert counted is not None, output
        assert int(counted[1]) >= 6, "what went through the proxy is counted"
        _, output = await call("curl", "-s", link[1])
        assert "<title>vipmesh</title>" in output

        await demo.line(rf"{second} is killed")
        answers = {(await call("sh", "-c", f"{curl} -s --max-time 3"))[1] for _ in range(6)}
        assert answers == {f"hello from {first}\n"}, "a dying instance costs no request"
        await demo.line(rf"{second} is pruned [\d.]+ s later; last probe: refused", seconds=30)
        _, output = await call("sh", "-c", show)
        assert re.search(rf"{vip} .* 1/2 ", output), output
        await demo.line(rf"{second} has passed its probes and serves again", seconds=40)
        accounts = [line for line in demo.output if "client:" in line]
        assert accounts
        assert all(line.endswith(" 0 failed\n") for line in accounts), accounts

        assert await demo.end(signal.SIGINT) == 0
        assert demo.output[-1].endswith("The demo has ended and left nothing behind.\n")
        assert "Traceback" not in "".join(demo.output)
        assert int(port) in (80, 8080)


@pytest.mark.skipif(os.geteuid() != 0, reason="the whole story already ran without privileges")
async def test_without_any_capability_it_serves_on_an_unprivileged_port() -> None:
    async with vipmesh("demo", prefix=UNPRIVILEGED) as demo:
        arrow = await demo.line(r"->  VIP (\S+), port (\d+)")
        assert arrow[2] == "8080"
        _, curl, _, _ = await printed_lines(demo)
        await demo.line(r"all 2 instances have answered")
        code, output = await call("sh", "-c", f"{curl} -s --max-time 3")
        assert code == 0
        assert output.startswith("hello from 127.0.0.1")
        assert await demo.end(signal.SIGTERM) == 0


@pytest.mark.timeout(120)
async def test_the_first_snippet_of_the_docs_runs_with_as_many_instances_as_it_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(SNIPPET.replace('scale: "2"', 'scale: "3"'))
    code, output = await call(sys.executable, "-m", "mesh", "check", str(file))
    assert (code, output) == (0, "1 files: 0 errors, 0 warnings\n")
    async with vipmesh("demo", str(file)) as demo:
        arrow = await demo.line(r"restserver\.local  ->  VIP (\S+), port (\d+)  ->  (.*)$")
        assert arrow[3] == "127.0.0.11:18080, 127.0.0.12:18080, 127.0.0.13:18080"
        _, curl, _, show = await printed_lines(demo)
        await demo.line(r"all 3 instances have answered their first probe", seconds=60)
        answers = {(await call("sh", "-c", f"{curl} -s --max-time 3"))[1] for _ in range(9)}
        assert answers == {f"hello from 127.0.0.1{n}:18080\n" for n in (1, 2, 3)}
        _, output = await call("sh", "-c", show)
        assert "warning" not in output.lower()
        assert await demo.end(signal.SIGINT) == 0
    assert "warning" not in "".join(demo.output).lower()
