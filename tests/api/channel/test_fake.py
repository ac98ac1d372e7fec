"""The fake of the channel keeps the contract."""

import pytest

from mesh.api.channel.worker_channel import ChannelReply
from mesh.model.table import RealKey
from mesh.testing.channel import FakeDirectory, FakeWorkerChannel
from tests.api.channel.contract import STATUS, WorkerChannelContract


class TestFakeWorkerChannel(WorkerChannelContract):
    @pytest.fixture
    def channel(self) -> FakeWorkerChannel:
        places = {worker: RealKey(f"192.0.2.{worker[1:]}", 9780) for worker in ("w2", "w4", "w5")}
        refused = {"192.0.2.4": "its address 192.0.2.4 is in the VIP pool"}
        made = FakeWorkerChannel(FakeDirectory(places, frozenset({"w3"}), refused))
        made.answers["w2", "/v1/status"] = ChannelReply(STATUS)
        made.hung.add("w5")
        return made
