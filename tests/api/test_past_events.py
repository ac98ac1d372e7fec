"""Which past events are about what is asked."""

import pytest

from mesh.api.past_events import events_about
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent

K = EventKind


def event(kind: EventKind, **fields: object) -> PastEvent:
    return PastEvent(at=1.0, kind=kind, code="VM780", text="it happened", **fields)  # type: ignore[arg-type]


def of_endpoint(kind: EventKind, id: str, name: str, address: str, owner: str = "shop/web") -> PastEvent:
    return event(kind, worker="w1", owner=owner, service="web.local", endpoint=id, name=name, address=address)


PAST = [
    event(
        K.SERVICE_VIP,
        owner="shop/web",
        service="web.local",
        names=("web.local", "www.test"),
        vip="10.112.0.7",
        ports=(80, 30080),
    ),
    of_endpoint(K.ENDPOINT_CAME, "docker/8f2c00aa", "web-1", "10.2.0.1"),
    of_endpoint(K.ENDPOINT_GONE, "docker/9e1d00bb", "web-2", "10.2.0.2"),
    event(K.CONTAINER_DIED, worker="w1", endpoint="77aabbcc", name="cron"),
    event(K.SERVICE_VIP, owner="shop/db", service="db.mesh.internal", names=("db.mesh.internal",), vip="10.112.0.8"),
    event(K.WORKER_LOST, worker="w2"),
    event(K.DAEMON_STARTED, worker="w1"),
]
WEB = [1, 2, 3]


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ("web.local", WEB),
        ("WEB.local.", WEB),
        ("www.test", WEB),
        ("http://web.local/path", WEB),
        ("web.local:8080", WEB),
        ("shop/web", WEB),
        ("web", WEB),
        ("10.112.0.7", WEB),
        ("10.112.0.7:80", WEB),
        ("30080", WEB),
        ("80", WEB),
        ("db", [5]),
        ("web-2", [3]),
        ("docker/8f2c00aa", [2]),
        ("w1/docker/8f2c00aa", [2]),
        ("8f2c", [2]),
        ("10.2.0.2", [3]),
        ("cron", [4]),
        ("w2", [6]),
        ("8f2", []),
        ("443", []),
        ("elsewhere.test", []),
        ("", []),
        ("10.2.0.9", []),
    ],
)
def test_events_about_a_name(asked: str, numbers: list[int]) -> None:
    past = [NumberedEvent(number, each) for number, each in enumerate(PAST, 1)]
    assert [each.number for each in events_about(asked, past, "mesh.internal")] == numbers


def test_a_worker_has_the_events_of_its_endpoints() -> None:
    past = [NumberedEvent(number, each) for number, each in enumerate(PAST, 1)]
    assert [each.number for each in events_about("w1", past, "mesh.internal")] == [2, 3, 4, 7]
