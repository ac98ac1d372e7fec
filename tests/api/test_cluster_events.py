"""The events of all workers: what an answer may have, how clocks are compared, and what is merged."""

import msgspec
import pytest

from mesh.api.cluster_events import (
    MAX_MERGED_EVENTS,
    KeptEvent,
    cluster_document,
    merge_newest,
    missing,
    own_answer,
    read_answer,
)
from mesh.api.past_events import PastEventsDocument
from mesh.model.codes import Code
from mesh.model.past_event import MAX_EVENT_NAMES, MAX_EVENT_TEXT, EventKind, NumberedEvent, PastEvent


def event(at: float, text: str = "x") -> PastEvent:
    return PastEvent(at=at, kind=EventKind.ENDPOINT_GONE, code="VM780", text=text)


def answer(*events: PastEvent, now: float = 100.0) -> bytes:
    numbered = tuple(NumberedEvent(number, each) for number, each in enumerate(events, 1))
    return msgspec.json.encode(PastEventsDocument("who it says it is", now, numbered))


def test_events_are_merged_by_time_and_each_has_its_worker() -> None:
    own = PastEventsDocument("w1", 100.0, (NumberedEvent(7, event(2.0)), NumberedEvent(8, event(4.0))))
    other = read_answer("w2", answer(event(1.0), event(3.0)), 100.0, 100.0)
    away = missing("w3", "worker w3: no answer", Code.CHANNEL_NO_ANSWER)
    events = merge_newest(own_answer(own).events, other.events)
    document = cluster_document(own, events, [away.asked, other.asked], 0)
    assert [(each.worker, each.number, each.event.at) for each in document.events] == [
        ("w2", 1, 1.0),
        ("w1", 7, 2.0),
        ("w2", 2, 3.0),
        ("w1", 8, 4.0),
    ]
    assert [asked.worker for asked in document.workers] == ["w1", "w2", "w3"]
    assert (document.workers[2].error, document.workers[2].code) == ("worker w3: no answer", "VM676")


@pytest.mark.parametrize(
    ("now", "sent", "received", "ahead"),
    [
        (100.0, 100.0, 100.0, None),
        (101.0, 100.0, 100.0, None),
        (103.0, 100.0, 100.0, 3.0),
        (97.0, 100.0, 100.2, -3.1),
        (102.5, 100.0, 104.0, None),
        (1e9, 100.0, 104.0, 999999898.0),
    ],
)
def test_a_clock_differs_when_the_way_cannot_explain_it(
    now: float, sent: float, received: float, ahead: float | None
) -> None:
    assert read_answer("w2", answer(now=now), sent, received).asked.clock == ahead


def test_an_event_of_another_worker_has_the_bounds_of_own_ones() -> None:
    hostile = PastEvent(
        at=1.0,
        kind=EventKind.CONFLICT,
        code="VM1\x1b[2J",
        text="a\nb" * 10_000,
        names=("x\x07",) * 1000,
        ports=tuple(range(1000)),
        reason="\x1b]0;owned\x07",
    )
    (kept,) = read_answer("w2", answer(hostile), 100.0, 100.0).events
    texts = (kept.event.code, kept.event.text, kept.event.reason or "", *kept.event.names)
    assert all(text.isprintable() and len(text) <= MAX_EVENT_TEXT for text in texts)
    assert (len(kept.event.names), len(kept.event.ports)) == (MAX_EVENT_NAMES, MAX_EVENT_NAMES)
    assert kept.worker == "w2", "not what it says of itself"


def test_an_event_that_cannot_be_read_is_left_out_and_counted() -> None:
    known = {"number": 1, "event": msgspec.to_builtins(event(1.0))}
    wrong = [
        {"number": 2, "event": {**msgspec.to_builtins(event(1.0)), "kind": "of-a-later-version"}},
        {"number": 3, "event": {**msgspec.to_builtins(event(1.0)), "at": 1e300}},
        {"number": -1, "event": msgspec.to_builtins(event(1.0))},
        {"number": 4, "event": None},
    ]
    more = {**msgspec.to_builtins(event(2.0)), "of_a_later_version": 1}
    document = {"worker": "w2", "now": 1.0, "events": [known, *wrong, {"number": 9, "event": more}]}
    found = read_answer("w2", msgspec.json.encode(document), 1.0, 1.0)
    assert [each.number for each in found.events] == [1, 9]
    assert found.asked.unreadable == 4


NONE = (b"", b"[]", b'{"now": "x"}', b'{"now": 1e300}', b"[" * 100_000, b'{"now": 1, "events": 5}')


@pytest.mark.parametrize("body", NONE)
def test_what_is_no_document_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_answer("w2", body, 1.0, 1.0)


def test_of_too_many_events_the_newest_stay() -> None:
    more = [KeptEvent(number, event(float(number)), "w2") for number in range(MAX_MERGED_EVENTS)]
    kept = merge_newest([KeptEvent(1, event(-1.0), "w1"), KeptEvent(2, event(1e6), "w1")], more)
    assert len(kept) == MAX_MERGED_EVENTS
    assert {each.number for each in kept if each.worker == "w1"} == {2}
    assert min(each.event.at for each in kept) == 1.0
