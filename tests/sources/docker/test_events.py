"""Docker events of containers that end by one signal or another."""

import msgspec
import pytest

from mesh.sources.docker.events import EventMeaning, event_meaning, exit_code, has_died
from mesh.sources.docker.inspection import StopConfig, inspection_of, signal_number
from mesh.sources.docker.messages import ContainerDetails, DockerEvent

LABELLED = {"mesh.routing.port_80": "web.test", "name": "web-1"}


def event(action: str, kind: str = "container", **attributes: str) -> DockerEvent:
    raw = {"Type": kind, "Action": action, "Actor": {"ID": "f" * 64, "Attributes": {**LABELLED, **attributes}}}
    return msgspec.convert(raw, DockerEvent)


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("start", EventMeaning.BEGUN),
        ("die", EventMeaning.ENDED),
        ("destroy", EventMeaning.ENDED),
        ("pause", EventMeaning.LOOK),
        ("unpause", EventMeaning.LOOK),
        ("rename", EventMeaning.LOOK),
        ("died", EventMeaning.ENDED),
        ("oom", EventMeaning.OUT_OF_MEMORY),
        ("remove", EventMeaning.ENDED),
        ("health_status: unhealthy", EventMeaning.INSPECT),
        ("health_status", EventMeaning.INSPECT),
    ],
)
def test_actions(action: str, what: EventMeaning) -> None:
    assert event_meaning(event(action), StopConfig()) is what


@pytest.mark.parametrize(
    ("stop_signal", "sent", "what"),
    [
        ("SIGTERM", "15", EventMeaning.STOPPING),
        ("SIGTERM", "9", EventMeaning.STOPPING),
        ("SIGTERM", "1", EventMeaning.NOTHING),
        ("SIGTERM", "10", EventMeaning.NOTHING),
        ("SIGTERM", "18", EventMeaning.NOTHING),
        ("SIGUSR1", "10", EventMeaning.STOPPING),
        ("QUIT", "3", EventMeaning.STOPPING),
        ("28", "28", EventMeaning.STOPPING),
        ("CONT", "18", EventMeaning.DRAIN_FIRST),
        ("SIGCONT", "15", EventMeaning.STOPPING),
        ("CONT", "9", EventMeaning.STOPPING),
        ("SIGTERM", "", EventMeaning.NOTHING),
        ("nonsense", "15", EventMeaning.STOPPING),
    ],
)
def test_signals(stop_signal: str, sent: str, what: EventMeaning) -> None:
    inspected = msgspec.convert({"Id": "f", "Config": {"StopSignal": stop_signal}}, ContainerDetails)
    assert event_meaning(event("kill", signal=sent), inspection_of(inspected).stop) is what


@pytest.mark.parametrize(
    ("action", "attributes", "code"),
    [
        ("die", {"exitCode": "137"}, 137),
        ("died", {"containerExitCode": "0"}, 0),
        ("die", {}, None),
        ("die", {"exitCode": "-1"}, None),
        ("die", {"exitCode": "9" * 5000}, None),
        ("die", {"exitCode": "\u0663"}, None),
        ("destroy", {"exitCode": "137"}, None),
    ],
)
def test_the_exit_code_of_an_event(action: str, attributes: dict[str, str], code: int | None) -> None:
    assert exit_code(event(action, **attributes)) == code
    assert has_died(event(action)) is action.startswith("die")


def test_an_unknown_container_ends_with_the_default_signal() -> None:
    assert event_meaning(event("kill", signal="15"), None) is EventMeaning.STOPPING
    assert event_meaning(event("kill", signal="18"), None) is EventMeaning.NOTHING


def test_other_events_are_ignored() -> None:
    assert event_meaning(DockerEvent(type="container", action="start"), None) is EventMeaning.NOTHING, "not labelled"
    assert event_meaning(event("pull", kind="image"), None) is EventMeaning.NOTHING
    assert event_meaning(event("connect", kind="network"), None) is EventMeaning.LOOK


def test_the_time_between_the_signal_and_the_kill() -> None:
    told = {
        "Id": "f",
        "Config": {"StopSignal": None, "StopTimeout": 30},
        "State": {"StartedAt": "2026-01-01T00:00:00Z"},
    }
    inspected = inspection_of(msgspec.convert(told, ContainerDetails))
    assert (inspected.stop, inspected.run) == (StopConfig(15, 30.0), "2026-01-01T00:00:00Z")
    assert inspection_of(msgspec.convert({"Id": "f"}, ContainerDetails)).stop.seconds == 10.0


@pytest.mark.parametrize(
    ("text", "number"),
    [("15", 15), ("TERM", 15), ("sigterm", 15), ("SIGCONT", 18), ("", None), ("SIGX", None), ("٣", None)],
)
def test_numbers_of_signals(text: str, number: int | None) -> None:
    assert signal_number(text) == number
