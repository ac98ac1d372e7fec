"""The rows of a connectivity test, and the table for people."""

from dataclasses import replace

import pytest

from mesh.api.connectivity.plan import ConnectivityPlan, ConnectivityTarget, TargetKind
from mesh.api.connectivity.report import RowState, UntestedClient, make_report, make_row, render_report
from mesh.api.connectivity.trace import LossCause, PacketLoss
from mesh.model.request import RequestOutcome, RequestResult
from mesh.model.service import Transport

ADDRESS = ConnectivityTarget(
    "web.test", "demo/web", TargetKind.VIP, Transport.TCP, "10.112.0.7", 80, endpoints=("10.2.0.1",)
)
NAME = replace(ADDRESS, name="web.test")
SILENT = replace(ADDRESS, transport=Transport.UDP, replies=False)
TALKING = replace(SILENT, replies=True)
IDLE = replace(ADDRESS, endpoints=())
PLAN = ConnectivityPlan("w1", "nftables", "10.112.0.0/16", None, "10.112.0.1", "10.112.0.1", 0.0, (ADDRESS, NAME))
DROP = PacketLoss(
    LossCause.RULE, "ip filter FORWARD: drop", False, "ip", "filter", "FORWARD", "drop", "br-2", "br-1", True
)
GONE = PacketLoss(LossCause.UNANSWERED, "behind 10.2.0.1:80 on br-1", oif="br-1")


def result(outcome: RequestOutcome, detail: str = "") -> RequestResult:
    return RequestResult(outcome, 0.25, detail, ADDRESS.address, "172.18.0.2", 40000)


Out = RequestOutcome


@pytest.mark.parametrize(
    ("target", "outcome", "loss", "state", "lost"),
    [
        (ADDRESS, Out.ANSWERED, None, RowState.OK, None),
        (ADDRESS, Out.NO_ANSWER, DROP, RowState.FAILED, "rule"),
        (ADDRESS, Out.NO_ANSWER, GONE, RowState.FAILED, "unanswered"),
        (ADDRESS, Out.NO_ANSWER, None, RowState.FAILED, None),
        (ADDRESS, Out.REFUSED, GONE, RowState.FAILED, None),
        (ADDRESS, Out.REFUSED, DROP, RowState.FAILED, "rule"),
        (ADDRESS, Out.REJECTED, DROP, RowState.FAILED, "rule"),
        (ADDRESS, Out.CLOSED, None, RowState.FAILED, None),
        (ADDRESS, Out.NOT_SENT, None, RowState.FAILED, None),
        (NAME, Out.NO_NAME, None, RowState.FAILED, None),
        (replace(NAME, optional=True), Out.NO_NAME, None, RowState.SKIPPED, None),
        (IDLE, Out.REFUSED, None, RowState.FAILED, None),
        (SILENT, Out.ANSWERED, None, RowState.OK, None),
        (SILENT, Out.NO_ANSWER, GONE, RowState.UNKNOWN, None),
        (SILENT, Out.NO_ANSWER, DROP, RowState.FAILED, "rule"),
        (SILENT, Out.REFUSED, GONE, RowState.OK, None),
        (SILENT, Out.REFUSED, DROP, RowState.FAILED, "rule"),
        (replace(SILENT, endpoints=()), Out.REFUSED, None, RowState.FAILED, None),
        (SILENT, Out.REJECTED, None, RowState.FAILED, None),
        (TALKING, Out.NO_ANSWER, GONE, RowState.FAILED, "unanswered"),
    ],
)
def test_whether_a_request_came_back(
    target: ConnectivityTarget, outcome: RequestOutcome, loss: PacketLoss | None, state: RowState, lost: str | None
) -> None:
    row = make_row("host", target, result(outcome), PLAN, loss)
    assert (row.state, row.lost_cause) == (state, lost)
    assert (row.remedy is not None) == (state is RowState.FAILED), "a failure has a line that helps, and nothing else"
    assert (row.lost_at is not None) == (lost is not None)


def test_a_client_that_is_not_set_up_to_ask_the_mesh_does_not_count() -> None:
    missing = result(Out.NO_NAME, "name server 127.0.0.11: NXDOMAIN")
    container = make_row("network desk", NAME, missing, PLAN, resolves=True)
    assert (container.state, container.detail) == (
        RowState.SKIPPED,
        "name server 127.0.0.11: NXDOMAIN; the mesh's name server answers there",
    )
    assert container.remedy is not None
    assert '"dns": ["10.112.0.1"] in /etc/docker/daemon.json' in container.remedy
    host = make_row("host", NAME, missing, PLAN, resolves=True)
    assert host.remedy == "set [dns] upstream, and make `nameserver 10.112.0.1` the only one in /etc/resolv.conf"


@pytest.mark.parametrize(
    ("rows", "untested", "works"),
    [
        ([Out.ANSWERED], 0, True),
        ([Out.ANSWERED], 1, True),
        ([Out.ANSWERED, Out.NO_ANSWER], 0, False),
        ([], 1, False),
    ],
)
def test_it_works_if_everything_came_back_and_something_was_sent(
    rows: list[RequestOutcome], untested: int, works: bool
) -> None:
    made = [make_row("host", ADDRESS, result(outcome), PLAN) for outcome in rows]
    report = make_report("w1", made, [UntestedClient("network x", "it is internal")] * untested, 0.5)
    assert report.works is works


def test_the_table() -> None:
    rows = [
        make_row("host", ADDRESS, result(Out.ANSWERED), PLAN),
        make_row("network desk", ADDRESS, result(Out.NO_ANSWER, "no answer within 2 s"), PLAN, DROP),
        make_row("network desk", NAME, result(Out.NO_ANSWER, "no answer within 2 s"), PLAN, DROP),
        make_row("network desk", ADDRESS, result(Out.REFUSED, "Connection refused"), PLAN, DROP, guess=True),
        make_row("network desk", SILENT, result(Out.NO_ANSWER, "no answer within 2 s"), PLAN),
    ]
    untested = [UntestedClient("network inner", "it is internal"), UntestedClient("worker w2", "not asked", "ask it")]
    line = "iptables -I DOCKER-USER -m conntrack --ctstate DNAT --ctorigdst 10.112.0.0/16 -j ACCEPT"
    assert render_report(make_report("w1", rows, untested, 2.25)).splitlines() == [
        "host          tcp://10.112.0.7:80  VIP  ok      250.0 ms  answered",
        "network desk  tcp://10.112.0.7:80  VIP  LOST    250.0 ms  no-answer: no answer within 2 s",
        "network desk  tcp://web.test:80    VIP  LOST    250.0 ms  no-answer: no answer within 2 s",
        "    lost: ip filter FORWARD: drop",
        f"    fix:  {line}",
        "network desk  tcp://10.112.0.7:80  VIP  FAILED  250.0 ms  refused: Connection refused",
        "    lost: ip filter FORWARD: drop (a guess, from counters)",
        f"    fix:  {line}",
        "network desk  udp://10.112.0.7:80  VIP  ?       250.0 ms  no-answer: no answer within 2 s",
        "network inner: not tested: it is internal",
        "worker w2: not tested: not asked",
        "    fix:  ask it",
        "1 requests came back, 3 did not, 1 prove nothing  (2.2 s)",
    ]
