"""The zone: existing names, missing names, and names that are not ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdns.zone import RecordType, Zone, ZoneLookupResult, encode_name, name_suffixes

ZONE = Zone.build(
    {
        "restserver.local": ["10.112.0.7"],
        "deep.down.mesh.internal": ["10.112.0.8", "fd00::8"],
        "web.mesh.internal": ["10.112.0.9"],
        "below.restserver.local": ["10.112.0.10"],
    },
    ["mesh.internal"],
    ttl=7,
    serial=42,
)


def found(name: str, qtype: int = RecordType.A) -> ZoneLookupResult:
    answer = ZONE.lookup(encode_name(name), qtype)
    assert answer is not None, f"{name} is not own"
    return answer


@pytest.mark.parametrize(
    ("name", "qtype", "exists", "records"),
    [
        pytest.param("restserver.local", RecordType.A, True, 1, id="a name"),
        pytest.param("restserver.local", RecordType.AAAA, True, 0, id="no such data: musl fails on NXDOMAIN here"),
        pytest.param("restserver.local", 65, True, 0, id="a type we know nothing of"),
        pytest.param("deep.down.mesh.internal", RecordType.AAAA, True, 1, id="an IPv6 address"),
        pytest.param("down.mesh.internal", RecordType.A, True, 0, id="an empty name in between"),
        pytest.param("mesh.internal", RecordType.A, True, 0, id="the domain itself"),
        pytest.param("mesh.internal", RecordType.SOA, True, 1, id="its SOA"),
        pytest.param("restserver.local", RecordType.SOA, True, 1, id="the SOA of a name of its own"),
        pytest.param("nope.mesh.internal", RecordType.A, False, 0, id="no such name"),
        pytest.param("nope.restserver.local", RecordType.A, False, 0, id="no such name below a name"),
        pytest.param("below.restserver.local", RecordType.A, True, 1, id="a name below a name"),
        pytest.param("web.mesh.internal", RecordType.ANY, True, 1, id="ANY is one RRset"),
    ],
)
def test_own_names(name: str, qtype: int, exists: bool, records: int) -> None:
    answer = found(name, qtype)
    assert (answer.exists, len(answer.records)) == (exists, records)


@pytest.mark.parametrize("name", ["local", "example.com", "xrestserver.local", "internal", "xmesh.internal"])
def test_other_names_are_not_ours(name: str) -> None:
    assert ZONE.lookup(encode_name(name), RecordType.A) is None


def test_the_root_is_not_ours() -> None:
    assert ZONE.lookup(b"\0", RecordType.A) is None


def test_the_soa_of_a_negative_answer_belongs_to_the_closest_own_domain() -> None:
    assert found("nope.mesh.internal").apex == encode_name("mesh.internal")
    assert found("nope.below.restserver.local").apex == encode_name("restserver.local")


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, ".".join(["abcdefg"] * 32), "bücher.example"])
def test_an_invalid_name_is_refused_and_quoted(name: str) -> None:
    with pytest.raises(ValueError, match="not"):
        Zone.build({name: ["10.112.0.7"]})


def test_a_name_of_maximum_length_is_valid() -> None:
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    zone = Zone.build({name: ["10.112.0.7"]})
    answer = zone.lookup(encode_name(name), RecordType.A)
    assert answer is not None
    assert len(answer.records) == 1
    assert all(len(part) <= 255 for part in (answer.soa.data[: len(encode_name(name))],))


NAME = st.lists(st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True), min_size=1, max_size=5).map(".".join)


@given(st.lists(NAME, max_size=6), st.lists(NAME, max_size=2), NAME)
def test_every_given_name_answers_and_everything_below_an_apex_is_own(
    names: list[str], domains: list[str], other: str
) -> None:
    zone = Zone.build({name: ["10.0.0.1"] for name in names}, domains)
    for name in names:
        here = zone.lookup(encode_name(name), RecordType.A)
        assert here is not None
        assert len(here.records) == 1
        below = zone.lookup(encode_name("x" * 30 + "." + name), RecordType.A)
        assert below is not None
    own = {encode_name(name) for name in (*names, *domains)}
    assert (zone.lookup(encode_name(other), RecordType.A) is not None) == any(
        suffix in own for suffix in name_suffixes(encode_name(other))
    )
