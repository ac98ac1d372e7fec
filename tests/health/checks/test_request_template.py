"""A request from the template that endpoints share is the request of `build_request`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.health.checks.http import build_request, request_template
from mesh.model.probe import Probe, ProbeKind

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(
    st.sampled_from(["10.0.0.7", "127.255.0.1", "2001:db8::7", "192.0.2.1"]),
    st.integers(1, 65535),
    st.builds(
        Probe,
        st.just(ProbeKind.HTTP),
        st.none(),
        texts.map(lambda text: f"/{text}"),
        method=st.sampled_from(["GET", "HEAD", "POST"]),
        host=st.sampled_from(["", "shop.example", "192.0.2.1:80"]),
        headers=st.lists(st.tuples(st.sampled_from(["Host", "host", "X-A", "Accept"]), texts), max_size=3).map(tuple),
    ),
)
def test_both_requests_are_the_same(address: str, port: int, probe: Probe) -> None:
    assert request_template(probe).request(address, port) == build_request(address, port, probe)


@pytest.mark.parametrize("host", ["", "shop.example"])
def test_endpoints_share_the_template(host: str) -> None:
    probe, equal = (Probe(ProbeKind.HTTP, 80, host=host) for _ in range(2))
    assert request_template(probe) is request_template(equal)
