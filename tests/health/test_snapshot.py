"""Verdicts applied to a view, and the health status that is reported."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.health.history import CheckHistory
from mesh.health.snapshot import HealthSnapshot, health_status
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Endpoint, EndpointKey, Health
from mesh.model.view import ClusterView
from tests.builders import service

SERVICES = tuple(
    service(f"{name}.test", owner=f"demo/{name}", probe=Probe(ProbeKind.TCP, 80)) for name in ("db", "web")
)
ENDPOINTS = tuple(
    Endpoint(id, f"demo/{owner}", worker, f"10.2.0.{number}")
    for number, (id, worker, owner) in enumerate([("a", "w1", "db"), ("b", "w1", "web"), ("c", "w2", "web")])
)
KEYS = st.sampled_from([endpoint.key for endpoint in ENDPOINTS])
SAID = st.dictionaries(KEYS, st.sampled_from([Health.HEALTHY, Health.UNHEALTHY]))


@given(SAID, st.dictionaries(KEYS, st.sampled_from([Health.HEALTHY, Health.UNHEALTHY, None])))
def test_applying_verdicts_to_a_view_sets_its_health(
    said: dict[EndpointKey, Health], over: dict[EndpointKey, Health | None]
) -> None:
    view = ClusterView(SERVICES, ENDPOINTS, health=said)
    groups = view.groups
    judged = view.judged(over)
    assert judged.health == {key: health for key, health in {**said, **over}.items() if health is not None}
    assert judged.groups == replace(judged).groups, "replace: found out from the endpoints"
    changed = {e.owner for e in ENDPOINTS if e.key in over and over[e.key] is not said.get(e.key)}
    assert all((judged.groups[owner] is groups[owner]) is (owner not in changed) for owner in groups)
    assert (judged is view) is (not changed)


def test_recent_verdicts_are_reported_as_text_and_in_detail_with_times() -> None:
    past = CheckHistory()
    past.add(Verdict(False, "refused", 0.25), 10.0)
    past.add(Verdict(True, "status 200", 0.5), 12.5)
    judged = HealthSnapshot(histories={("w1", "a"): past, ("w1", "b"): CheckHistory()}, epoch=1000.0)
    brief = health_status({}, {}, judged, in_detail=False)
    assert (brief.last, brief.verdicts) == ({("w1", "a"): "status 200"}, {})
    (told,) = health_status({}, {}, judged, in_detail=True).verdicts.items()
    assert told[0] == ("w1", "a")
    assert [(v.at, v.ok, v.reason, v.seconds) for v in told[1]] == [
        ("1970-01-01T00:16:50.000+00:00", False, "refused", 0.25),
        ("1970-01-01T00:16:52.500+00:00", True, "status 200", 0.5),
    ]
