"""What an event means for a container that ends by one signal or another."""

import msgspec
import pytest

from mesh.sources.docker.events import Ending, Meaning, ending_of, meaning, number_of
from mesh.sources.docker.messages import Event, Inspected

LABELLED = {"mesh.routing.port_80": "web.test", "name": "web-1"}


def event(action: str, kind: str = "container", **attributes: str) -> Event:
    raw = {"Type": kind, "Action": action, "Actor": {"ID": "f" * 64, "Attributes": {**LABELLED, **attributes}}}
    return msgspec.convert(raw, Event)


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("start", Meaning.BEGUN),
        ("die", Meaning.ENDED),
        ("destroy", Meaning.ENDED),
        ("pause", Meaning.LOOK),
        ("unpause", Meaning.LOOK),
        ("rename", Meaning.LOOK),
        ("health_status: unhealthy", Meaning.LOOK),
    ],
)
def test_actions(action: str, what: Meaning) -> None:
    assert meaning(event(action), Ending()) is what


@pytest.mark.parametrize(
    ("stop_signal", "sent", "what"),
    [
        ("SIGTERM", "15", Meaning.STOPPING),
        ("SIGTERM", "9", Meaning.STOPPING),
        ("SIGTERM", "1", Meaning.NOTHING),
        ("SIGTERM", "10", Meaning.NOTHING),
        ("SIGTERM", "18", Meaning.NOTHING),
        ("SIGUSR1", "10", Meaning.STOPPING),
        ("QUIT", "3", Meaning.STOPPING),
        ("28", "28", Meaning.STOPPING),
        ("CONT", "18", Meaning.DRAIN_FIRST),
        ("SIGCONT", "15", Meaning.STOPPING),
        ("CONT", "9", Meaning.STOPPING),
        ("SIGTERM", "", Meaning.NOTHING),
        ("nonsense", "15", Meaning.STOPPING),
    ],
)
def test_signals(stop_signal: str, sent: str, what: Meaning) -> None:
    inspected = msgspec.convert({"Id": "f", "Config": {"StopSignal": stop_signal}}, Inspected)
    assert meaning(event("kill", signal=sent), ending_of(inspected)) is what


def test_a_container_that_is_not_known_ends_as_most_do() -> None:
    assert meaning(event("kill", signal="15"), None) is Meaning.STOPPING
    assert meaning(event("kill", signal="18"), None) is Meaning.NOTHING


def test_others_are_passed_over() -> None:
    assert meaning(Event(type="container", action="start"), None) is Meaning.NOTHING, "not labelled"
    assert meaning(event("pull", kind="image"), None) is Meaning.NOTHING
    assert meaning(event("connect", kind="network"), None) is Meaning.LOOK


def test_the_time_between_the_signal_and_the_kill() -> None:
    told = {
        "Id": "f",
        "Config": {"StopSignal": None, "StopTimeout": 30},
        "State": {"StartedAt": "2026-01-01T00:00:00Z"},
    }
    assert ending_of(msgspec.convert(told, Inspected)) == Ending(15, 30.0, "2026-01-01T00:00:00Z")
    assert ending_of(msgspec.convert({"Id": "f"}, Inspected)).seconds == 10.0


@pytest.mark.parametrize(
    ("text", "number"),
    [("15", 15), ("TERM", 15), ("sigterm", 15), ("SIGCONT", 18), ("", None), ("SIGX", None), ("٣", None)],
)
def test_numbers_of_signals(text: str, number: int | None) -> None:
    assert number_of(text) == number
