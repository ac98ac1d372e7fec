"""Samples are taken from the first second on, and asked for over HTTP."""

import asyncio
from pathlib import Path

import pytest

from mesh.api.events import EventInput
from mesh.api.http.history import HistoryHandler, TrafficHistoryRecorder
from mesh.api.http.server import AdminApi
from mesh.api.traffic_history import INTERVAL, TrafficHistory
from mesh.model.service import Transport
from mesh.model.table import TrafficCounters, VirtualKey
from tests.api.http.worker import client, socket_of
from tests.api.page.browser import observed

WEB = VirtualKey("10.112.0.1", 80, Transport.TCP)


@pytest.mark.looptime
async def test_a_sample_is_taken_at_once_and_in_each_interval() -> None:
    history, count = TrafficHistory(), 0
    loop = asyncio.get_running_loop()

    async def look() -> EventInput:
        nonlocal count
        count += 100
        return EventInput(observed(2, 2), loop.time(), {WEB: TrafficCounters(count, count, count)})

    running = loop.create_task(TrafficHistoryRecorder(history, look).run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert history.document("w1").endpoints == (4.0,)
    await asyncio.sleep(3 * INTERVAL + 1)
    assert history.document("w1").opened == (None, 10.0, 10.0, 10.0)
    assert history.document("w1", "demo/1").bytes_out == (None, 10.0, 10.0, 10.0)
    running.cancel()


async def test_the_history_is_asked_for(tmp_path: Path) -> None:
    history = TrafficHistory()

    async def look() -> EventInput:
        return EventInput(observed(2, 2), 5.0)

    await TrafficHistoryRecorder(history, look).take()
    api = AdminApi(socket_of(tmp_path), observed, history=HistoryHandler(lambda: "w1", history))
    await api.start()
    try:
        async with client(tmp_path) as session:
            async with session.get("/v1/history") as answer:
                found = await answer.json()
            assert (found["worker"], found["endpoints"], found["services"]) == ("w1", [4.0], [2.0])
            async with session.get("/v1/history?of=demo/1") as answer:
                assert (await answer.json())["owner"] == "demo/1"
    finally:
        await api.stop()
