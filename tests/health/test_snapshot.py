"""What a view becomes when verdicts are put over it, and what is told of the probes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.health.history import CheckHistory
from mesh.health.snapshot import HealthSnapshot, health_status
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Endpoint, EndpointKey, Health, Route, Service, Transport
from mesh.model.view import ClusterView

PROBE = Probe(ProbeKind.TCP, 80)
SERVICES = tuple(
    Service(
        f"demo/{name}", f"{name}.test", (Route(f"{name}.test", 80, Transport.TCP, 80),), probe=Probe(ProbeKind.TCP, 80)
    )
    for name in ("db", "web")
)
ENDPOINTS = tuple(
    Endpoint(id, f"demo/{owner}", worker, f"10.2.0.{number}")
    for number, (id, worker, owner) in enumerate([("a", "w1", "db"), ("b", "w1", "web"), ("c", "w2", "web")])
)
KEYS = st.sampled_from([endpoint.key for endpoint in ENDPOINTS])
SAID = st.dictionaries(KEYS, st.sampled_from([Health.HEALTHY, Health.UNHEALTHY]))


@given(SAID, st.dictionaries(KEYS, st.sampled_from([Health.HEALTHY, Health.UNHEALTHY, None])))
def test_verdicts_over_a_view_give_the_view_with_these_verdicts(
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


def test_the_last_verdicts_are_told_in_words_and_in_detail_with_their_times() -> None:
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
