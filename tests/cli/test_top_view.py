"""From the events of the API to the table of `vipmesh top`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.events import EVENT_NAMES, EndpointTraffic, ServiceTraffic, TrafficEvent
from mesh.cli.top_view import TopBoard, TopRow, TopSnapshot, render_top

WORKER = {"worker": "w1", "data_plane": "ipvs"}


def endpoint_document(id: str, *, serving: bool = True, worker: str = "w1", name: str | None = None) -> dict[str, Any]:
    return {"id": id, "worker": worker, "name": name, "serving": serving}


def service_document(name: str, *endpoints: Mapping[str, Any], vip: str | None = "10.112.0.7") -> dict[str, Any]:
    return {"name": f"{name}.test", "owner": f"demo/{name}", "vip": vip, "endpoints": list(endpoints)}


def flow(*services: ServiceTraffic, counted: bool = True, opened: float | None = 1.0) -> Mapping[str, Any]:
    connections = sum(one.connections for one in services)
    return dataclasses.asdict(TrafficEvent(connections, services, counted, opened, opened, opened))


WEB = service_document(
    "web",
    endpoint_document("a", name="web-1"),
    endpoint_document("b", serving=False),
    endpoint_document("a", worker="w2"),
)
DB = service_document("db", endpoint_document("c"))
BUSY = ServiceTraffic("demo/web", 7, {"w1/a": 4, "w2/a": 2, "w9/gone": 1}, 12.25, 1500.0, 2_340_000.0)


def told(*events: tuple[str, Mapping[str, Any]]) -> TopSnapshot:
    board = TopBoard()
    (shown,) = [top for name, event in events if (top := board.take(name, event)) is not None]
    return shown


EVERYTHING = [("worker", WORKER), ("service", DB), ("service", WEB), ("ready", {"services": 2})]


def test_the_busiest_service_is_listed_first_with_the_names_of_its_endpoints() -> None:
    top = told(*EVERYTHING, ("flow", flow(BUSY)))
    assert top.services == (
        TopRow(
            "web.test",
            "demo/web",
            "10.112.0.7",
            2,
            3,
            7,
            12.25,
            1500.0,
            2_340_000.0,
            {"web-1": 4, "a": 2, "w9/gone": 1},
        ),
        TopRow("db.test", "demo/db", "10.112.0.7", 1, 1, 0, 0.0, 0.0, 0.0),
    )


def test_the_table() -> None:
    top = told(*EVERYTHING, ("flow", flow(BUSY)))
    assert (
        "\n".join(render_top(top, 110, 20))
        == """\
w1  ipvs  2 services, 3 of 4 endpoints serving
7 connections  1.0 new/s  in 1.0B/s  out 1.0B/s

SERVICE    VIP         SERVING  CONNECTIONS  NEW/s  IN/s  OUT/s
web.test   10.112.0.7   2 of 3            7     12  1.5k   2.3M
  web-1                                   4
  a                                       2
  w9/gone                                 1
db.test    10.112.0.7   1 of 1            0      0     0      0"""
    )


def test_endpoints_show_their_rates_on_80_columns() -> None:
    rates = {"w1/a": EndpointTraffic(12.25, 1500.0, 2_340_000.0), "w1/b": EndpointTraffic(0.0, 40.0, 0.0)}
    busy = dataclasses.replace(BUSY, endpoints={"w1/a": 4}, endpoint_rates=rates)
    top = told(*EVERYTHING, ("flow", flow(busy)))
    assert top.services[0].rates["web-1"] == {"opened": 12.25, "bytes_in": 1500.0, "bytes_out": 2_340_000.0}
    assert (
        "\n".join(render_top(top, 80, 20)[3:])
        == """\
SERVICE   VIP         SERVING  CONNECTIONS  NEW/s  IN/s  OUT/s
web.test  10.112.0.7   2 of 3            7     12  1.5k   2.3M
  web-1                                  4     12  1.5k   2.3M
  b                                      0      0    40      0
db.test   10.112.0.7   1 of 1            0      0     0      0"""
    )


LONG = service_document(
    "customers-of-the-northern-branch.production",
    endpoint_document("a", name="shop-customers-of-the-northern-branch-1.production"),
    vip="fd12:3456:789a:bcde:f012:3456:789a:bcde",
)


@pytest.mark.parametrize(
    ("columns", "table"),
    [
        (
            40,
            """\
w1  ipvs
1 services, 1 of 1 endpoints serving
1234567 connections  1.0 new/s
in 1.0B/s  out 1.0B/s

SERVICE                      CONNECTIONS
customers-of-the-norther...      1234567
  shop-customers-of-the-...      1234567""",
        ),
        (
            80,
            """\
w1  ipvs  1 services, 1 of 1 endpoints serving
1234567 connections  1.0 new/s  in 1.0B/s  out 1.0B/s

SERVICE                                 SERVING  CONNECTIONS  NEW/s  IN/s  OUT/s
customers-of-the-northern-branch.pr...   1 of 1      1234567   1.0M  1.5k   2.3M
  shop-customers-of-the-northern-br...               1234567""",
        ),
    ],
)
def test_long_names_and_addresses_leave_every_number_whole(columns: int, table: str) -> None:
    busy = ServiceTraffic(LONG["owner"], 1_234_567, {"w1/a": 1_234_567}, 1_000_000.0, 1500.0, 2_340_000.0)
    events = [("worker", WORKER), ("service", LONG), ("ready", {}), ("flow", flow(busy))]
    assert "\n".join(render_top(told(*events), columns, 20)) == table
    heading, service, endpoint = render_top(told(*events), 200, 20)[-3:]
    assert heading.split() == ["SERVICE", "VIP", "SERVING", "CONNECTIONS", "NEW/s", "IN/s", "OUT/s"]
    assert service.split() == [LONG["name"], LONG["vip"], "1", "of", "1", "1234567", "1.0M", "1.5k", "2.3M"]
    assert endpoint.split() == [LONG["endpoints"][0]["name"], "1234567"]


@pytest.mark.parametrize("counted", [False, True])
def test_missing_numbers_are_shown_as_a_dash(counted: bool) -> None:
    top = told(*EVERYTHING, ("flow", flow(counted=counted, opened=None)))
    assert [(row.opened, row.bytes_in, row.bytes_out) for row in top.services] == [(None, None, None)] * 2
    assert render_top(top, 110, 20)[-1].endswith("0      -     -      -")


def test_removed_changed_and_refused_entries() -> None:
    board = TopBoard()
    for name, event in EVERYTHING:
        assert board.take(name, event) is None
    board.take("gone", {"owner": "demo/web"})
    board.take("service", service_document("db", vip=None))
    board.take("something newer", {"x": 1})
    top = board.take("flow", flow())
    assert top is not None
    assert render_top(top, 110, 20)[4:] == ["db.test  REFUSED   0 of 0            0      0     0      0"]


def test_nothing_is_shown_before_everything_is_known() -> None:
    board = TopBoard()
    assert board.take("worker", WORKER) is None
    assert board.take("flow", flow()) is None


def test_it_reads_events_of_the_api() -> None:
    assert {"worker", "service", "gone", "flow", "ready", "happened"} == set(EVENT_NAMES.values()), (
        "the last is not shown"
    )


TEXT = st.text(max_size=60)


@given(
    st.lists(st.builds(service_document, TEXT, st.builds(endpoint_document, TEXT)), max_size=8),
    st.lists(st.tuples(TEXT, st.integers(0, 10**9), st.floats(0, 1e15)), max_size=4),
    st.integers(1, 200),
    st.integers(5, 40),
)
def test_any_name_and_any_number_fit_on_any_terminal(
    services: list[dict[str, Any]], busy: list[tuple[str, int, float]], columns: int, lines: int
) -> None:
    owners = [each["owner"] for each in services]
    carried = [
        ServiceTraffic(owner, n, {text: n}, rate, rate, rate)
        for owner, (text, n, rate) in zip(owners, busy, strict=False)
    ]
    events = [("worker", WORKER), *(("service", each) for each in services), ("ready", {}), ("flow", flow(*carried))]
    shown = render_top(told(*events), columns, lines)
    assert len(shown) <= lines
    assert all(len(line) <= columns and line.isprintable() for line in shown)
    whole = render_top(told(*events), columns, 10_000)
    body = sum(1 + len(row.busy) for row in told(*events).services)  # few lines have another head than many
    assert not body or shown[-body:] == whole[-body:] or shown[-1].startswith("... "[:columns]), (
        "what is left out is said"
    )
