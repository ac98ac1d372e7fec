"""Which upstream is queried when, and which answer counts; in virtual time, on a scripted network."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from dnslib import DNSRecord

from meshdns import bulkhead
from meshdns.message import UpstreamReply
from meshdns.upstream_query import FirstTryTimer, HedgingDelays, ReplyRules, UpstreamQuery
from meshdns.upstreams import Address, Upstream
from tests.meshdns.upstream import good, many, says, truncated

pytestmark = pytest.mark.looptime

KEY = b"\x01\x07example\x04test\0\0\1\0\1"
Behaviour = Callable[[DNSRecord], bytes | None]


@dataclass
class Network:
    """Each upstream by its name: after how many seconds it says what."""

    behaviour: dict[str, tuple[float, Behaviour] | type[OSError]]
    over_tcp: dict[str, tuple[float, Behaviour]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    listening: int = 0

    def ask(self, address: Address, packet: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        now = asyncio.get_running_loop().time()
        self.log.append(f"{now:.1f} {address[0]}{'' if packet[9] else ' without EDNS'}")
        does = self.behaviour[address[0]]
        if isinstance(does, type):
            raise does
        return self._later(packet, does, heard)

    def ask_tcp(self, address: Address, packet: bytes, heard: Callable[[bytes | None], None]) -> Callable[[], None]:
        self.log.append(f"{asyncio.get_running_loop().time():.1f} {address[0]} over TCP")

        def heard_once(packet: bytes | None) -> bool:
            heard(packet)
            return True

        return self._later(packet, self.over_tcp[address[0]], heard_once)

    def _later(
        self, packet: bytes, does: tuple[float, Behaviour], heard: Callable[[bytes | None], bool]
    ) -> Callable[[], None]:
        delay, reply = does
        said = reply(DNSRecord.parse(b"\0\7" + packet))
        ended = False

        def end() -> None:
            nonlocal ended
            self.listening -= not ended
            ended = True
            timer.cancel()

        def arrive() -> None:
            if (said is not None or reply is gone) and heard(said):
                end()

        timer = asyncio.get_running_loop().call_later(delay, arrive)
        self.listening += 1
        return end


def gone(_: DNSRecord) -> None:
    """ICMP says that nobody listens."""
    return


def mute(_: DNSRecord) -> None:
    """Nothing ever comes."""
    return


def old(query: DNSRecord) -> bytes:
    """Takes EDNS for an error."""
    return says("FORMERR")(query) if query.ar else good(query)


def forged(query: DNSRecord) -> bytes:
    return good(DNSRecord.question("evil.test"))


async def ask(
    network: Network, names: str, patience: HedgingDelays | None = None
) -> tuple[UpstreamReply | None, float]:
    """The outcome, and when it came."""
    loop = asyncio.get_running_loop()
    upstreams = [Upstream((name, 53)) for name in names]
    done: asyncio.Future[UpstreamReply | None] = loop.create_future()
    UpstreamQuery(KEY, upstreams, network, patience or HedgingDelays(), lambda _, reply: done.set_result(reply)).start()
    reply = await done
    assert network.listening == 0, "nobody is listened to afterwards"
    return reply, round(loop.time(), 3)


OK, FAIL, NO, NXDOMAIN = good, says("SERVFAIL"), says("REFUSED"), says("NXDOMAIN")


@pytest.mark.parametrize(
    ("behaviour", "rcode", "at", "log"),
    [
        pytest.param({"a": (0.1, OK), "b": (0.1, OK)}, 0, 0.1, ["0.0 a"], id="the first answers: nobody else is asked"),
        pytest.param({"a": (0.5, OK), "b": (0.2, OK)}, 0, 0.5, ["0.0 a", "0.4 b"], id="late, but before the second"),
        pytest.param({"a": (9, mute), "b": (0.2, OK)}, 0, 0.6, ["0.0 a", "0.4 b"], id="silence: the second answers"),
        pytest.param({"a": (0.1, FAIL), "b": (0.1, OK)}, 0, 0.2, ["0.0 a", "0.1 b"], id="SERVFAIL: the next at once"),
        pytest.param({"a": (0.1, NO), "b": (0.1, OK)}, 0, 0.2, ["0.0 a", "0.1 b"], id="REFUSED: the next at once"),
        pytest.param({"a": (0.1, gone), "b": (0.1, OK)}, 0, 0.2, ["0.0 a", "0.1 b"], id="not there: the next at once"),
        pytest.param({"a": OSError, "b": (0.1, OK)}, 0, 0.1, ["0.0 a", "0.0 b"], id="unreachable: the next at once"),
        pytest.param({"a": (0.1, NXDOMAIN), "b": (0.1, OK)}, 3, 0.1, ["0.0 a"], id="NXDOMAIN is an answer"),
        pytest.param({"a": (0.1, FAIL), "b": (0.1, FAIL)}, 2, 0.2, ["0.0 a", "0.1 b"], id="believed when all say so"),
        pytest.param({"a": (0.1, FAIL)}, 2, 0.5, ["0.0 a", "0.4 a"], id="a lone upstream is asked twice"),
        pytest.param({"a": (0.1, gone), "b": (0.1, NO)}, 5, 0.2, ["0.0 a", "0.1 b"], id="one gone, one unwilling"),
        pytest.param(
            {"a": (9, mute)},
            None,
            4.5,
            ["0.0 a", "0.4 a without EDNS", "1.4 a", "2.4 a without EDNS"],
            id="nobody answers: the end of patience",
        ),
        pytest.param(
            {"a": (4.3, OK)},
            0,
            4.3,
            ["0.0 a", "0.4 a without EDNS", "1.4 a", "2.4 a without EDNS"],
            id="in time, if only just",
        ),
        pytest.param({"a": (0.1, gone)}, None, 2.5, ["0.0 a", "0.4 a", "1.4 a", "2.4 a"], id="it may be restarting"),
        pytest.param(
            {"a": (9, mute), "b": (9, mute), "c": (9, mute), "d": (9, mute), "e": (0.1, OK)},
            0,
            3.5,
            ["0.0 a", "0.4 b", "1.4 c", "2.4 d", "3.4 e"],
            id="each of five",
        ),
        pytest.param({"a": (0.1, old)}, 0, 0.2, ["0.0 a", "0.1 a without EDNS"], id="an old server"),
        pytest.param({"a": (0.1, forged), "b": (0.1, OK)}, 0, 0.5, ["0.0 a", "0.4 b"], id="a forged answer"),
    ],
)
async def test_the_schedule_of_upstream_queries(
    behaviour: dict[str, tuple[float, Behaviour] | type[OSError]], rcode: int | None, at: float, log: list[str]
) -> None:
    network = Network(behaviour)
    reply, when = await ask(network, "".join(behaviour))
    assert (None if reply is None else reply.rcode, when) == (rcode, at)
    assert network.log == log


class TestTruncation:
    async def test_the_whole_answer_comes_over_tcp(self) -> None:
        network = Network({"a": (0.1, truncated)}, {"a": (0.2, many(100))})
        reply, when = await ask(network, "a")
        assert reply is not None
        assert (reply.counts[0], reply.truncated, when) == (100, False, 0.3)
        assert network.log == ["0.0 a", "0.1 a over TCP"]

    async def test_an_upstream_without_tcp_is_followed_by_the_next(self) -> None:
        network = Network({"a": (0.1, truncated), "b": (0.1, good)}, {"a": (0.1, gone)})
        reply, when = await ask(network, "ab")
        assert reply is not None
        assert (reply.counts[0], when) == (1, 0.3)

    async def test_if_every_answer_is_truncated_the_client_gets_tc(self) -> None:
        network = Network({"a": (0.1, truncated)}, {"a": (0.1, gone)})
        reply, _ = await ask(network, "a")
        assert reply is not None
        assert reply.truncated


async def test_a_silent_upstream_is_deprioritised_and_tried_again_later() -> None:
    network = Network({"a": (9, mute), "b": (0.1, good)})
    a, b = Upstream(("a", 53)), Upstream(("b", 53))
    loop = asyncio.get_running_loop()

    async def once() -> None:
        done: asyncio.Future[UpstreamReply | None] = loop.create_future()
        UpstreamQuery(KEY, [a, b], network, HedgingDelays(), lambda _, reply: done.set_result(reply)).start()
        assert await done is not None

    for _ in range(3):
        assert not a.aside(loop.time())
        await once()
    assert a.aside(loop.time())
    await asyncio.sleep(6)
    assert a.on_trial(loop.time())
    network.log.clear()
    began = loop.time()
    await once()
    assert loop.time() - began == pytest.approx(0.1), "its chance costs the client nothing: both are asked"
    assert len(network.log) == 2
    network.behaviour["a"] = (0.05, good)
    await asyncio.sleep(20)
    await once()
    assert (a.failures, a.aside_until) == (0, 0)


async def test_closing_cancels_all_queries_without_answers() -> None:
    network = Network({"a": (0.5, good), "b": (0.5, good)})
    said: list[UpstreamReply | None] = []
    exchange = UpstreamQuery(
        KEY, [Upstream(("a", 53)), Upstream(("b", 53))], network, HedgingDelays(), lambda _, reply: said.append(reply)
    )
    exchange.start()
    await asyncio.sleep(0.45)
    assert network.listening == 2
    exchange.close()
    assert network.listening == 0
    await asyncio.sleep(10)
    assert said == []


async def test_a_query_that_raises_when_it_is_woken_leaves_the_timer_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[str] = []
    monkeypatch.setattr(bulkhead, "_report", [lambda subject, error: found.append(f"{subject}: {error!r}")])
    network, timer, patience = Network({"a": (9, mute), "b": (0.1, OK)}), FirstTryTimer(0.4), HedgingDelays()
    answered: list[float] = []
    wake = UpstreamQuery.wake

    def wake_one(query: UpstreamQuery) -> None:
        if query is queries[0]:
            raise LookupError("on purpose")
        wake(query)

    def done(_: bytes, reply: UpstreamReply | None) -> None:
        assert reply is not None
        answered.append(round(asyncio.get_running_loop().time(), 3))

    monkeypatch.setattr(UpstreamQuery, "wake", wake_one)
    queries: list[UpstreamQuery] = []
    for _ in range(3):
        upstreams = [Upstream((name, 53)) for name in "ab"]
        queries.append(UpstreamQuery(KEY, upstreams, network, patience, done, ReplyRules(), timer))
        queries[-1].start()
    await asyncio.sleep(1)
    assert found == ["queries whose first upstream is silent: LookupError('on purpose')"]
    assert answered == [0.5, 0.5]
    queries.append(UpstreamQuery(KEY, [Upstream((name, 53)) for name in "ab"], network, patience, done, timers=timer))
    queries[-1].start()
    await asyncio.sleep(1)
    assert answered[2:] == [1.5]
    queries[0].close()
