"""A prober whose process is stopped for a while, as on a suspended laptop or virtual machine: no endpoint fails."""

import asyncio
import os
import signal
import sys

from tests.health.checks.endpoints import TIME_WAIT, endpoint, socket_states, until

PROBER = """
import asyncio, sys
import uvloop
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Health
from mesh.health.prober import Prober
from mesh.health.targets import ProbeTarget

async def main(port):
    prober = Prober(lambda: print(*sorted(set(prober.health().values())), flush=True))
    plain = Probe(ProbeKind.HTTP, None, timeout=2.0, interval=0.5, unhealthy_threshold=1)
    body = Probe(ProbeKind.HTTP, None, timeout=2.0, interval=0.5, unhealthy_threshold=1, expect_body="ok")
    prober.watch({("w1", f"{n}"): ProbeTarget(body if n % 4 == 0 else plain, "127.0.0.1", port) for n in range(20)})
    await prober.run()

uvloop.run(main(int(sys.argv[1])))
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answers_late(transport: asyncio.Transport) -> None:
    """So that there is always something under way."""
    asyncio.get_running_loop().call_later(0.2, transport.write, ANSWER)


async def test_a_process_that_was_stopped_fails_no_endpoint() -> None:
    async with endpoint(answers_late) as (port, requests, open_ones):
        prober = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROBER, str(port), stdout=asyncio.subprocess.PIPE, env={**os.environ}
        )
        try:
            assert prober.stdout is not None
            said: list[bytes] = []
            while b"healthy\n" not in said:
                said.append(await asyncio.wait_for(prober.stdout.readline(), 20))
            await until(lambda: len(open_ones) >= 5)
            prober.send_signal(signal.SIGSTOP)
            await asyncio.sleep(3.5)  # longer than any timeout, and than what counts as a gap
            asked = len(requests)
            prober.send_signal(signal.SIGCONT)
            await until(lambda: len(requests) >= asked + 60, 20)
        finally:
            prober.kill()
            after, _ = await prober.communicate()
    assert after == b"", said
    assert TIME_WAIT not in socket_states(port)
