"""Constant load on an address, as a process of its own: `load.py HOST PORT RATE LONG [PATIENCE]`, until its input ends.

RATE new connections a second, one request each, started by the clock and not by the last answer, and at any time LONG
connections that take two seconds to be answered. Prints what became of them as JSON, each failure with the moment when
its request began. A request fails after PATIENCE seconds.
"""

import asyncio
import json
import sys
import time
from collections import Counter


class Load:
    def __init__(self, host: str, port: int, patience: float) -> None:
        self._place = host, port
        self._patience = patience
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []

    async def ask(self, kind: str, path: str, expected: bytes) -> None:
        began = time.time()
        try:
            async with asyncio.timeout(self._patience):
                answer = await self._get(path)
            problem = None if answer.rstrip().endswith(expected) else f"cut off after {answer[-40:]!r}"
        except (OSError, TimeoutError) as error:
            problem = f"{type(error).__name__} {error}"
        self.done[kind] += 1
        if problem is not None:
            self.failures.append(f"{began:.3f} {kind}: {problem} after {time.time() - began:.1f} s")
            await asyncio.sleep(0.1)  # refusals come at once: who is refused does not ask as fast as he can

    async def _get(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection(*self._place)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: load\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()

    async def often(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self.ask("short", "/", b"up"))
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def long(self) -> None:
        while True:
            await self.ask("long", "/cgi-bin/slow", b"end")


async def main(host: str, port: str, rate: str, long: str, patience: str = "10") -> None:
    load = Load(host, int(port), float(patience))
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(load.often(float(rate))),
            *(tasks.create_task(load.long()) for _ in range(int(long))),
        ]
        sys.stdout.write("loading\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        for task in running:
            task.cancel()
    sys.stdout.write(json.dumps({"done": load.done, "failures": load.failures}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
