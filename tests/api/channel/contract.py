"""What every channel between workers must do; the real one and the fake subclass it with fixtures.

Worker w2 answers `/v1/status` with `STATUS`, w3 publishes nothing, w4 is at an address that no worker can have, w5
never answers.
"""

import pytest

from mesh.api.channel.worker_channel import ChannelError, WorkerChannel
from mesh.model.codes import Code

STATUS = b'{"worker": "w2"}'


async def refusal(channel: WorkerChannel, worker: str, path: str = "/v1/status", **bounds: float) -> ChannelError:
    with pytest.raises(ChannelError) as raised:
        await channel.ask(worker, path, deadline=bounds.get("deadline", 30), most=int(bounds.get("most", 1 << 20)))
    return raised.value


class WorkerChannelContract:
    """One worker's view of the others."""

    async def test_a_worker_answers(self, channel: WorkerChannel) -> None:
        for _ in range(2):
            answer = await channel.ask("w2", "/v1/status")
            assert (answer.body, answer.content_type) == (STATUS, "application/json")

    async def test_who_is_not_in_the_cluster_cannot_be_asked(self, channel: WorkerChannel) -> None:
        error = await refusal(channel, "w9")
        assert error.code is Code.CHANNEL_NO_ADDRESS
        assert "no other worker of that name; there are: w2, w3, w4, w5" in str(error)

    async def test_who_publishes_no_address_cannot_be_asked(self, channel: WorkerChannel) -> None:
        error = await refusal(channel, "w3")
        assert error.code is Code.CHANNEL_NO_ADDRESS
        assert "does not publish where its admin API is; check that it runs and is connected" in str(error)

    async def test_an_address_that_no_worker_can_have_is_not_asked(self, channel: WorkerChannel) -> None:
        error = await refusal(channel, "w4")
        assert error.code is Code.CHANNEL_NO_ADDRESS
        assert "is in the VIP pool" in str(error)

    async def test_an_error_of_the_other_worker_is_told(self, channel: WorkerChannel) -> None:
        error = await refusal(channel, "w2", "/v1/nothing")
        assert (error.code, error.status) == (Code.CHANNEL_REFUSED, 404)

    async def test_no_answer_in_time(self, channel: WorkerChannel) -> None:
        error = await refusal(channel, "w5", deadline=0.5)
        assert error.code is Code.CHANNEL_NO_ANSWER
        assert "no answer within 0.5 s" in str(error)

    async def test_an_answer_that_is_too_long(self, channel: WorkerChannel) -> None:
        error = await refusal(channel, "w2", most=5)
        assert error.code is Code.CHANNEL_NO_ANSWER
        assert "more than 5 bytes" in str(error)
        assert (await channel.ask("w2", "/v1/status")).body == STATUS, "the next question is answered"
