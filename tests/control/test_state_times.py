"""Since when endpoints are in their state, step by step."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.control.state_times import EndpointStateTimes
from mesh.model.service import DrainReason, Endpoint, EndpointKey, Health
from mesh.model.view import ClusterView

ENDPOINTS = st.builds(
    Endpoint,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["demo/web", "demo/db"]),
    st.sampled_from(["w1", "w2"]),
    st.just("10.2.0.1"),
    drain=st.sampled_from([None, DrainReason.ASKED]),
    run=st.sampled_from([None, "1", "2"]),
)
VIEWS = st.builds(
    lambda endpoints, health: ClusterView(endpoints=tuple(sorted(endpoints, key=lambda e: e.key)), health=health),
    st.lists(ENDPOINTS, unique_by=lambda e: e.key, max_size=6),
    st.dictionaries(
        st.tuples(st.sampled_from(["w1", "w2"]), st.sampled_from(["a", "b", "c"])), st.sampled_from([*Health])
    ),
)


def states(view: ClusterView) -> dict[EndpointKey, object]:
    return {e.key: (e.owner, view.health.get(e.key), e.drain, e.run) for e in view.endpoints}


@given(st.lists(VIEWS, max_size=6))
def test_a_time_is_that_of_the_last_change(views: list[ClusterView]) -> None:
    times, before = EndpointStateTimes(), dict[EndpointKey, object]()
    expected: dict[EndpointKey, float] = {}
    for now, view in enumerate(views):
        times = times.after(view, now)
        after = states(view)
        expected = {key: expected[key] if before.get(key) == state else now for key, state in after.items()}
        before = after
        assert dict(times.since) == expected


def test_nothing_new_changes_nothing() -> None:
    view = ClusterView(endpoints=(Endpoint("a", "demo/web", "w1", "10.2.0.1"),))
    times = EndpointStateTimes().after(view, 1.0)
    assert times.after(view, 2.0) is times
    assert times.after(replace(view), 3.0).since == {("w1", "a"): 1.0}
