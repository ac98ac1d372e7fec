"""A look at the releases on a worker: what the plan, the probes, the ends of containers and the data plane tell."""

from dataclasses import dataclass, field

from mesh.control.event_recorder import ContainerExit, ContainerExits
from mesh.control.service_plan import ServicePlan, ServicePlanInput
from mesh.health.state_machine import Verdict
from mesh.model.release_checks import ReleaseChecks
from mesh.model.service import DrainReason, Endpoint, EndpointKey, Health, Instance, Route, Service, Transport
from mesh.model.table import (
    FailedConnections,
    RealKey,
    RealServer,
    Table,
    TrafficCounters,
    VirtualKey,
    VirtualServer,
)
from mesh.platform.rollouts.evidence_records import CheckCounts, ConnectionCounts
from mesh.platform.rollouts.release_evidence import (
    InstanceExit,
    JudgedInstance,
    LedConnections,
    ReleaseKey,
    ReleaseObservation,
)
from mesh.platform.rollouts.release_look import ReleaseLook, ReleaseSources
from mesh.testing.dataplane import FakeDataPlane

OWNER, VIP = "shop/web", "10.112.0.7"
KEY = VirtualKey(VIP, 80, Transport.TCP)
V1, V2 = ReleaseKey(OWNER, "v1"), ReleaseKey(OWNER, "v2")
HERE = Endpoint("a", OWNER, "w1", "10.1.0.1", release="v2")
DRAINS = Endpoint("b", OWNER, "w1", "10.1.0.2", release="v1", drain=DrainReason.ASKED)
THERE = Endpoint("a", OWNER, "w2", "10.2.0.1", release="v2")
REALS = tuple(RealKey(endpoint.address, 8080) for endpoint in (HERE, DRAINS, THERE))
GOOD = Verdict(True, "status 200", 0.01, 5.0)


def part() -> ServicePlan:
    service = Service(OWNER, "web.test", (Route("web.test", 80, Transport.TCP, 8080),))
    endpoints = (HERE, DRAINS, THERE)
    inputs = ServicePlanInput(service, VIP, (), (), frozenset(), (), False, endpoints, (None,) * 3)
    server = VirtualServer(real_servers=dict.fromkeys(REALS, RealServer()))
    return ServicePlan(inputs, VIP, (), {KEY: server}, {}, frozenset())


@dataclass
class Lab:
    """A look with what it asks."""

    plane: FakeDataPlane = field(default_factory=lambda: FakeDataPlane(Table(part().virtual_servers)))
    exits: ContainerExits = field(default_factory=ContainerExits)
    labels: dict[str, str] = field(default_factory=dict)
    health: dict[EndpointKey, Health] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sources = ReleaseSources(
            lambda: {OWNER: part()},
            lambda: {"a": Instance("a", OWNER, "10.1.0.1", self.labels)},
            lambda key: (GOOD,) if key == ("w1", "a") else (),
            lambda: self.health,
            lambda: {V2: {"release.check.cmd": CheckCounts(1)}},
        )
        self.look = ReleaseLook("w1", sources, self.plane, self.exits)


async def test_a_look_has_what_this_worker_knows_of_each_release() -> None:
    lab = Lab()
    lab.exits.put(ContainerExit("a", "web-1", 1, False))
    lab.exits.put(ContainerExit("b", "web-2", 143, False, is_asked=True))
    lab.plane.carried_by = {(KEY, REALS[0]): TrafficCounters(10), (KEY, REALS[2]): TrafficCounters(7)}
    lab.plane.failed = {(KEY, REALS[0]): FailedConnections(2, 1, 3)}
    lab.plane.active = {(KEY, REALS[2]): 4}
    assert await lab.look([OWNER, "shop/unknown"]) == ReleaseObservation(
        {"a": JudgedInstance(V2), "b": JudgedInstance(V1, is_ending=True)},
        [InstanceExit("a"), InstanceExit("b", is_asked=True)],
        {"a": (GOOD,), "b": ()},
        [
            LedConnections(V2, "w1/a", (KEY, REALS[0]), ConnectionCounts(13, 0, 2, 1, 3)),
            LedConnections(V1, "w1/b", (KEY, REALS[1]), ConnectionCounts(0, 0, 0, 0, 0)),
            LedConnections(V2, "w2/a", (KEY, REALS[2]), ConnectionCounts(7, 4, 0, 0, 0)),
        ],
        {V2: {"release.check.cmd": CheckCounts(1)}},
    )
    assert (await lab.look([OWNER])).exits == []


async def test_what_the_data_plane_does_not_tell_is_missing() -> None:
    lab = Lab()
    lab.plane.gone = "no answer"
    found = await lab.look([OWNER])
    assert found.connections == ()
    assert found.instances.keys() == {"a", "b"}
    assert (await lab.look([])).connections == ()


def test_own_instances_that_serve_are_checked_by_their_own_labels() -> None:
    lab = Lab(labels={"mesh.release.check.cmd": "/bin/check"})
    ((key, (checked,)),) = lab.look.checked({OWNER: "v2", "shop/unknown": "v1"}).items()
    assert (key, checked.endpoint, checked.checks) == (V2, HERE, ReleaseChecks("/bin/check"))
    assert lab.look.checked({OWNER: "v1"}) == {}
    lab.health = {HERE.key: Health.STARTING}
    assert lab.look.checked({OWNER: "v2"}) == {}
