"""The releases of a service in its status: who has which share, by whose request, and how exactly."""

from dataclasses import replace

import pytest

from mesh.api.metrics.counts import count_cluster
from mesh.api.release_rows import ReleaseStatus
from mesh.api.status import ServiceStatus, render_status, worker_status
from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.control.view import ViewInputs, effective_view
from mesh.model.claims import Claims
from mesh.model.problem import Notices
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Endpoint, Scheduler, Service
from mesh.model.view import ClusterView
from tests.builders import WEB_VIP, endpoint, service, view

WEB = service("web.test")
CLAIMS = Claims({"web.test": WEB_VIP}, {"web.test": WEB.owner}, {}, {WEB_VIP: "web.test"})
NEW = endpoint("new", address="10.2.0.100", release="v2")


def old(number: int) -> Endpoint:
    return endpoint(f"old-{number}", address=f"10.2.0.{number}", release="v1")


def observed(seen: ClusterView, data_plane: str = "ipvs") -> WorkerSnapshot:
    traffic = effective_view(ViewInputs("w9", seen)).traffic
    planned = make_plan(traffic, traffic.health)
    return WorkerSnapshot(WorkerFacts("1", "w9", data_plane, "a test"), seen, plan=planned)


def shared(*endpoints: Endpoint, points: int | None = 1000, of: Service = WEB) -> ClusterView:
    seen = view(of, *sorted(endpoints, key=lambda each: each.id), claims=CLAIMS)
    if points is None:
        return seen
    return replace(seen, shares={of.owner: ReleaseShares(of.owner, {"v2": points}, ("v1", "v2"), "anna")})


def row(snapshot: WorkerSnapshot) -> ServiceStatus:
    (found,) = worker_status(snapshot).services
    return found


def test_the_status_has_each_release_with_its_share() -> None:
    found = row(observed(shared(old(1), old(2), NEW)))
    assert found.releases == (ReleaseStatus("v1", 2, 2, None, 90.0), ReleaseStatus("v2", 1, 1, 10.0, 10.0))
    assert (found.shares_by, found.shares_note) == ("anna", None)
    assert [each.weight for each in found.endpoints] == [1, 1, 1], "the own ones"
    text = render_status(worker_status(observed(shared(old(1), old(2), NEW))), Notices())
    assert "  shares: release v1 90 %, release v2 10 %" in text


def test_without_shares_it_has_what_follows_from_weights() -> None:
    found = row(observed(shared(old(1), old(2), NEW, points=None)))
    assert [(each.release, each.given, each.share) for each in found.releases] == [
        ("v1", None, 66.67),
        ("v2", None, 33.33),
    ]
    assert found.shares_by is None
    assert row(observed(shared(endpoint("a"), points=None))).releases == ()


def test_an_endpoint_without_a_share_does_not_serve() -> None:
    found = row(observed(shared(old(1), NEW, points=0)))
    assert {each.id: (each.serving, each.programming) for each in found.endpoints} == {
        "new": (False, False),
        "old-1": (True, False),
    }
    assert [(each.serving, each.share) for each in found.releases] == [(1, 100.0), (0, 0.0)]


def test_the_metrics_have_the_shares() -> None:
    (counts,) = count_cluster(observed(shared(old(1), NEW))).rows
    assert [(each.release, float(each.share)) for each in counts.releases] == [("v1", 0.9), ("v2", 0.1)]


@pytest.mark.parametrize(
    ("of", "ends", "data_plane", "note"),
    [
        (WEB, 1, "nftables", None),
        (WEB, 20, "ipvs", None),
        (WEB, 20, "nftables", "nftables keeps them at random: 2000 slots are more than 256"),
        (replace(WEB, scheduler=Scheduler.WLC), 1, "ipvs", "scheduler wlc divides open connections, not new ones"),
        (replace(WEB, scheduler=Scheduler.MH), 1, "ipvs", "scheduler mh divides clients, not connections"),
        (replace(WEB, persistence=60), 1, "ipvs", "clients stay with their endpoint: only new clients are divided"),
    ],
)
def test_the_status_says_how_exact_shares_are(of: Service, ends: int, data_plane: str, note: str | None) -> None:
    seen = shared(*map(old, range(1, ends + 1)), NEW, points=100, of=of)
    assert row(observed(seen, data_plane)).shares_note == note
