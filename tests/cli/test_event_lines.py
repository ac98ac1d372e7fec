"""The lines of `vipmesh events` for several workers."""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.cli.event_lines import ClusterEventLines, events_with_worker, notes_about


def kept(worker: str, number: int, at: float, text: str) -> Mapping[str, Any]:
    event = {"at": at, "kind": "endpoint-gone", "code": "VM780", "text": text}
    return {"worker": worker, "number": number, "event": event}


def document(events: Sequence[Mapping[str, Any]], *workers: Mapping[str, Any], dropped: int = 0) -> Mapping[str, Any]:
    asked = [{"clock": None, "error": None, "code": None, "unreadable": 0, **each} for each in workers]
    return {"worker": "w1", "now": 1.0, "events": events, "workers": asked, "dropped": dropped}


def said(found: Mapping[str, Any]) -> list[list[str]]:
    """The words of each line behind its time."""
    return [line.split()[2:] for line in ClusterEventLines(found).lines(events_with_worker(found))]


W1, W2, W3 = ({"worker": name} for name in ("w1", "w2", "w3"))


def test_what_several_workers_notice_at_one_time_is_one_line() -> None:
    events = [kept("w2", 1, 10.0, "a"), kept("w1", 1, 10.5, "b"), kept("w1", 2, 11.0, "a"), kept("w3", 1, 14.9, "a")]
    assert said(document(events, W1, W2, W3)) == [
        ["w2", "+2", "endpoint-gone", "a", "[VM780]"],
        ["w1", "endpoint-gone", "b", "[VM780]"],
    ]


def test_the_same_again_is_a_line_of_its_own() -> None:
    events = [kept("w1", 1, 10.0, "a"), kept("w1", 2, 11.0, "a"), kept("w2", 1, 11.5, "a"), kept("w2", 2, 30.0, "a")]
    assert said(document(events, W1, W2)) == [
        ["w1", "endpoint-gone", "a", "[VM780]"],
        ["w1", "+1", "endpoint-gone", "a", "[VM780]"],
        ["w2", "endpoint-gone", "a", "[VM780]"],
    ]


def test_of_one_worker_alone_no_line_names_it() -> None:
    alone = {
        "worker": "w1",
        "now": 1.0,
        "events": [{k: v for k, v in kept("w1", 1, 1.0, "a").items() if k != "worker"}],
    }
    assert said(alone) == [["endpoint-gone", "a", "[VM780]"]]
    assert events_with_worker(alone)[0]["worker"] == "w1"
    assert list(notes_about(alone)) == []


def test_no_name_of_a_worker_writes_into_a_terminal() -> None:
    (line,) = ClusterEventLines(document([], W1, W2)).lines([kept("\x1b[2J", 1, 1.0, "a\x07")])
    assert line.isprintable()


def test_what_the_reader_must_know() -> None:
    reason = "this worker has no certificate"
    found = document(
        [],
        W1,
        {"worker": "w3", "error": reason, "code": "VM672"},
        {"worker": "w2", "error": reason, "code": "VM672"},
        {"worker": "w4", "clock": 2.5},
        {"worker": "w5", "clock": -3600.0, "unreadable": 2},
        {"worker": "w6", "error": "worker w6: no answer", "code": "VM676"},
        dropped=7,
    )
    assert [(note.text, note.code) for note in notes_about(found)] == [
        ("the clock of worker w4 is 2.5 s ahead of that of w1", None),
        ("the clock of worker w5 is 3600 s behind that of w1", None),
        ("2 events of w5 cannot be read by w1; update it", None),
        ("without the events of w2, w3: this worker has no certificate", "VM672"),
        ("without the events of w6: worker w6: no answer", "VM676"),
        ("without the 7 oldest events; ask for less with --since, NAME or --worker", None),
    ]


def test_a_note_is_the_same_while_it_lasts() -> None:
    first, later = (
        [note.about for note in notes_about(document([], W1, {"worker": "w2", "clock": clock}))] for clock in (2.5, 2.6)
    )
    assert first == later
