"""The forward cache against a model of validity over time; only the tests move the clock."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshdns.cache import MAX_ANSWER_BYTES, RETRY_SECONDS, STALE_RETRY_SECONDS, ForwardCache
from meshdns.message import UpstreamReply

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])


def reply(lifetime: int, body: bytes = b"") -> UpstreamReply:
    return UpstreamReply(0, body=body, lifetime=lifetime)


@dataclass
class Known:
    reply: UpstreamReply
    came: float


class Believing(RuleBasedStateMachine):
    """Nothing is shown for longer than it may be, nor under another key; within that, what was put is there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.cache = ForwardCache(entries=3, octets=1 << 20, stale=50)
        self.model: dict[bytes, Known] = {}
        self.recent: list[bytes] = []
        """What was put or used, the latest last: as many as there is room for must be there."""

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=KEYS, lifetime=st.integers(0, 60))
    def put(self, key: bytes, lifetime: int) -> None:
        said = reply(lifetime, key)
        self.cache.put(key, said, self.now)
        self.model.pop(key, None)
        self._use(key, remove=lifetime == 0)
        if lifetime:
            self.model[key] = Known(said, self.now)

    @rule(key=KEYS)
    def ask(self, key: bytes) -> None:
        found, known = self.cache.fresh(key, self.now), self.model.get(key)
        if found is not None:
            said, age = found
            assert known is not None
            assert said is known.reply
            assert 0 <= self.now - known.came < said.lifetime, "not a moment too long"
            assert self.now - known.came - 1 < age < said.lifetime, "an age that never flatters"
            self._use(key)
        elif known is not None and key in self.recent:
            assert self.now - known.came > known.reply.lifetime - 1, "not a second too short"

    @rule(key=KEYS)
    def ask_past_its_time(self, key: bytes) -> None:
        found, known = self.cache.stale(key, self.now), self.model.get(key)
        if found is not None:
            assert known is not None
            assert found is known.reply
            assert self.now - known.came < known.reply.lifetime + 50
            self._use(key)
        elif known is not None and key in self.recent:
            assert self.now - known.came > known.reply.lifetime + 49

    @invariant()
    def bounded(self) -> None:
        assert len(self.cache) <= 3
        assert self.cache.octets >= 0
        assert (self.cache.octets == 0) == (len(self.cache) == 0)

    def _use(self, key: bytes, *, remove: bool = False) -> None:
        self.recent = [each for each in self.recent if each != key]
        if not remove:
            self.recent = [*self.recent, key][-3:]


TestBelieving = Believing.TestCase


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, MAX_ANSWER_BYTES)), max_size=80))
def test_the_size_limit_is_never_exceeded(puts: list[tuple[int, int]]) -> None:
    cache = ForwardCache(entries=50, octets=100_000)
    for number, size in puts:
        cache.put(b"%d" % number, reply(60, bytes(size)), 0)
        assert cache.octets <= 100_000
        assert len(cache) <= 50
    if puts:
        last, size = puts[-1]
        assert cache.fresh(b"%d" % last, 0) is not None, "the latest is never what has to go"


def test_an_entry_above_the_size_limit_is_not_cached() -> None:
    cache = ForwardCache()
    cache.put(b"a", reply(60), 0)
    cache.put(b"a", reply(60, bytes(MAX_ANSWER_BYTES + 1)), 0)
    assert cache.fresh(b"a", 0) is None, "nor what it has replaced"


def test_failures_are_cached_briefly_and_longer_with_a_stale_answer() -> None:
    cache = ForwardCache()
    cache.failed(b"a", 10)
    assert cache.failing(b"a", 10 + RETRY_SECONDS / 2)
    assert not cache.failing(b"a", 10 + RETRY_SECONDS)
    cache.put(b"b", reply(5), 10)
    cache.failed(b"b", 20)
    assert cache.stale(b"b", 20) is not None
    assert cache.failing(b"b", 20 + STALE_RETRY_SECONDS - 1)
    assert not cache.failing(b"b", 20 + STALE_RETRY_SECONDS)
    cache.put(b"b", reply(5), 21)
    assert not cache.failing(b"b", 21), "an answer ends it"
