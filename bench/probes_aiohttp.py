"""A peer for the bench: the same checks by an aiohttp client, a task for each endpoint: COUNT INTERVAL PORT."""

import asyncio
import sys
from ipaddress import ip_address

import aiohttp
import uvloop


async def ask(session: aiohttp.ClientSession, url: str, start: float, interval: float) -> None:
    """One endpoint, in its rhythm."""
    loop = asyncio.get_running_loop()
    due = start
    while True:
        await asyncio.sleep(due - loop.time())
        async with session.get(url) as answer:
            assert answer.status == 200
        due += interval


async def serve(count: int, interval: float, port: int) -> None:
    """Until the process is ended."""
    first, begin = ip_address("127.1.0.1"), asyncio.get_running_loop().time()
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session, asyncio.TaskGroup() as tasks:
        for number in range(count):
            url = f"http://{first + number}:{port}/health"
            tasks.create_task(ask(session, url, begin + interval * number / count, interval), name="check")


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
