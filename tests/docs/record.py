"""Records `vipmesh demo` as docs/demo.svg: its real output at its real pace, in light and in dark.

python -m tests.docs.record
"""

import asyncio
import contextlib
import signal
import tempfile
from xml.sax.saxutils import escape

from tests.docs.pages import ROOT
from tests.system.e2e.programs import VIPMESH

SECONDS = 34.0
"""Until an instance has died and was pruned."""
WIDTH, LINE, LEFT, TOP = 940, 19, 18, 48

_STYLE = """
text { font: 13px ui-monospace, Menlo, Consolas, monospace; white-space: pre; fill: #1f2328; }
.back { fill: #f6f8fa; stroke: #d0d7de; } .dot { fill: #d0d7de; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .back { fill: #0d1117; stroke: #30363d; } .dot { fill: #30363d; }
}
@keyframes come { from { opacity: 0; } to { opacity: 1; } }
.l { opacity: 0; animation: come 0.2s forwards; }
@media (prefers-reduced-motion: reduce) { .l { opacity: 1; animation: none; } }
"""


async def recorded() -> list[tuple[float, str]]:
    """When each line came, in seconds from the start."""
    loop, found = asyncio.get_running_loop(), list[tuple[float, str]]()
    with tempfile.TemporaryDirectory() as directory:
        process = await asyncio.create_subprocess_exec(*VIPMESH, "demo", stdout=asyncio.subprocess.PIPE, cwd=directory)
        assert process.stdout is not None
        began = loop.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                while line := (await process.stdout.readline()).decode():
                    found.append((loop.time() - began, line.rstrip().replace(f"{ROOT}/", "")))
        process.send_signal(signal.SIGINT)
        found += [(SECONDS, line) for line in (await process.stdout.read()).decode().splitlines()]
        await process.wait()
    return found


def drawn(lines: list[tuple[float, str]]) -> str:
    """The picture. Waiting is shortened to at most two seconds."""
    height = TOP + LINE * (len(lines) + 1) + 12
    rows, shown, before = [f'<text x="{LEFT}" y="{TOP}">$ make run</text>'], 0.5, 0.0
    for number, (at, line) in enumerate(lines, 1):
        shown, before = shown + min(2.0, max(0.05, at - before)), at
        style = f"animation-delay:{shown:.2f}s"
        rows.append(f'<text class="l" style="{style}" x="{LEFT}" y="{TOP + LINE * number}">{escape(line)}</text>')
    dots = "".join(f'<circle class="dot" cx="{LEFT + 16 * n}" cy="20" r="5"/>' for n in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="vipmesh demo in a terminal"><style>{_STYLE}</style>'
        f'<rect class="back" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>{dots}'
        f"{''.join(rows)}</svg>\n"
    )


if __name__ == "__main__":
    (ROOT / "docs" / "demo.svg").write_text(drawn(asyncio.run(recorded())))
