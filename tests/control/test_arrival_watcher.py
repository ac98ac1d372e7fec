"""A worker that looks at the connections of clients: what its operator reads when requests do not arrive."""

import asyncio
import logging
from ipaddress import ip_network

import pytest

from mesh.api.explain.document import render_explanation
from mesh.api.explain.query import explain
from mesh.api.metrics.families import MetricsInput, render_metrics
from mesh.api.status import notices, render_status, worker_status
from mesh.config.values import Network
from mesh.control.arrival_watcher import LOOK_INTERVAL, PassiveSources
from mesh.dataplane import DataPlaneError
from mesh.dataplane.client_flows import ClientFlow, FlowKey
from mesh.host.request_counts import RequestCounts
from mesh.model.codes import Code
from mesh.model.service import Transport
from mesh.model.table import VirtualKey
from mesh.testing.host import FakeFlows
from mesh.testing.probes import FakeCheck
from tests.builders import PROBED_WEB_LABELS, numbered_instance
from tests.control.reported import status_of
from tests.control.test_reconciler import Bench

pytestmark = pytest.mark.looptime

CLIENT = "172.18.0.2"


async def networks() -> tuple[Network, ...]:
    return (ip_network("172.18.0.0/16"),)


async def no_counts(_: object) -> RequestCounts:
    return RequestCounts({}, {})


def answering() -> FakeCheck:
    """Probes that the one endpoint answers."""
    check = FakeCheck()
    check.set("10.2.0.1", 80, ok=True, reason="status 200")
    return check


def unanswered(vip: str, *, answered: int = 0) -> list[ClientFlow]:
    virtual = VirtualKey(vip, 80, Transport.TCP)
    return [ClientFlow(FlowKey(virtual, CLIENT, 40000 + n), n < answered) for n in range(5)]


async def test_requests_that_do_not_arrive_are_reported_everywhere_and_cleared() -> None:
    flows = FakeFlows()
    bench = Bench(check=answering(), passive=PassiveSources(flows, networks, no_counts))
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await bench.passes(2 * LOOK_INTERVAL)
        (vip,) = bench.plane.table.vips
        assert explain("web.test", loop.snapshots.evidence()).works

        flows.seen = unanswered(vip)
        await bench.passes(5 * LOOK_INTERVAL)
        (problem,) = status_of(loop).problems
        assert problem.startswith("warning: service demo/web: requests from the network 172.18.0.0/16 have not arrived")
        observed = loop.snapshots.observe()
        shown = worker_status(observed)
        assert [service.not_arriving for service in shown.services] == [("the network 172.18.0.0/16",)]
        text = render_status(shown, notices(observed))
        assert "  requests do not arrive from the network 172.18.0.0/16\n" in text
        assert "[VM571]" in text
        assert b'vipmesh_arrival_pairs{state="not-arriving"} 1\n' in render_metrics(MetricsInput(observed))
        assert b'vipmesh_problems{part="arrival",severity="warning"} 1\n' in render_metrics(MetricsInput(observed))
        explanation = explain("web.test", loop.snapshots.evidence())
        assert not explanation.works
        assert "  not-arriving: requests from the network 172.18.0.0/16 do not arrive: connections of clients" in (
            render_explanation(explanation, notices(observed))
        )

        flows.seen = unanswered(vip, answered=1)
        await bench.passes(1.5 * LOOK_INTERVAL)  # and no look at its very end
        assert (status_of(loop).problems, explain("web.test", loop.snapshots.evidence()).works) == ((), True)


async def test_a_service_that_is_gone_is_reported_no_more() -> None:
    flows = FakeFlows()
    bench = Bench(check=answering(), passive=PassiveSources(flows, networks))
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await bench.passes(2 * LOOK_INTERVAL)
        flows.seen = unanswered(*bench.plane.table.vips)
        await bench.passes(5 * LOOK_INTERVAL)
        assert len(status_of(loop).problems) == 1
        bench.source.say([])
        await bench.passes(60)
        assert status_of(loop).problems == ()


async def test_connections_that_cannot_be_read_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    flows = FakeFlows()
    flows.error = DataPlaneError(Code.NETLINK_FAILED, "netfilter did not answer within 5 s: see dmesg")
    bench = Bench(check=answering(), passive=PassiveSources(flows, networks))
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
        await bench.passes(10 * LOOK_INTERVAL)
        assert status_of(loop).services[0].virtual_servers
        flows.error = None
        await bench.passes(2 * LOOK_INTERVAL)
        await asyncio.sleep(0)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("requests that do not arrive are not noticed: netfilter did not" in line for line in lines) == 1
    assert sum("connections of clients are looked at again" in line for line in lines) == 1
