"""What IPVS lists and answers, in the words of the mesh."""

import errno

import pytest

from mesh.dataplane.diff import diff
from mesh.dataplane.ipvs.convert import ALIEN, Change, as_edit, encode, reason, virtual_server
from mesh.dataplane.ipvs.messages import BY_PORT, DIRECT, FALLBACK, MASQUERADE, PERSISTENT, TUNNEL, Destination, Service
from mesh.dataplane.netlink import Ack
from mesh.dataplane.operations import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
)
from mesh.model.service import Forwarding, Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer

WEB = VirtualKey("10.112.0.7", 80, Transport.TCP)
BACKEND = RealKey("10.2.0.1", 8080)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        pytest.param(Service(WEB, "rr"), VirtualServer(Scheduler.RR), id="plain"),
        pytest.param(Service(WEB, "rr", 0, 300), VirtualServer(Scheduler.RR), id="a timeout without the flag"),
        pytest.param(Service(WEB, "wlc", PERSISTENT, 300), VirtualServer(Scheduler.WLC, 300), id="persistent"),
        pytest.param(Service(WEB, "lblc"), VirtualServer(Scheduler.WRR, ALIEN), id="a scheduler that is not ours"),
        pytest.param(
            Service(WEB, "lblc", PERSISTENT, 300), VirtualServer(Scheduler.WRR, ALIEN), id="such a one, persistent"
        ),
        pytest.param(
            Service(WEB, "mh", FALLBACK | BY_PORT | PERSISTENT, 60),
            VirtualServer(Scheduler.MH, 60, flags=frozenset(SchedulerFlag)),
            id="the flags of mh",
        ),
        pytest.param(
            Service(WEB, "wlc", FALLBACK),
            VirtualServer(Scheduler.WLC, ALIEN, flags=frozenset({SchedulerFlag.FALLBACK})),
            id="flags that its scheduler does not have",
        ),
        pytest.param(Service(WEB, "rr", 4), VirtualServer(Scheduler.RR, ALIEN), id="one packet scheduling"),
        pytest.param(
            Service(WEB, "rr", PERSISTENT, 300, 24),
            VirtualServer(Scheduler.RR, ALIEN),
            id="persistent by client network",
        ),
    ],
)
def test_virtual_servers(service: Service, expected: VirtualServer) -> None:
    assert virtual_server(service, ()) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (MASQUERADE, RealServer(3, Forwarding.MASQUERADE, 100, 80)),
        (TUNNEL, RealServer(3, Forwarding.TUNNEL, 100, 80)),
        (DIRECT, RealServer(3, Forwarding.DIRECT, 100, 80)),
        (1, RealServer(ALIEN, Forwarding.MASQUERADE, 100, 80)),
    ],
    ids=["masquerade", "tunnel", "direct", "on this host, which no plan asks for"],
)
def test_real_servers(method: int, expected: RealServer) -> None:
    found = virtual_server(Service(WEB, "wrr"), [Destination(BACKEND, 3, method, 100, 80, active=3)])
    assert found.real_servers == {BACKEND: expected}


def test_another_forwarding_is_set_right() -> None:
    found = virtual_server(Service(WEB, "wrr"), [Destination(BACKEND, 1, TUNNEL, active=3)])

    assert diff(Table({WEB: found}), Table({WEB: VirtualServer(real_servers={BACKEND: RealServer(1)})})) == (
        EditRealServer(WEB, BACKEND, RealServer(1)),
    )


def test_settings_that_no_plan_asks_for_are_set_right() -> None:
    found = virtual_server(Service(WEB, "lblc"), [])

    assert diff(Table({WEB: found}), Table({WEB: VirtualServer()})) == (EditVirtualServer(WEB, Scheduler.WRR, 0),)


@pytest.mark.parametrize(
    ("addition", "edit"),
    [
        (AddVirtualServer(WEB, Scheduler.RR, 5), EditVirtualServer(WEB, Scheduler.RR, 5)),
        (AddRealServer(WEB, BACKEND, RealServer(3)), EditRealServer(WEB, BACKEND, RealServer(3))),
    ],
)
def test_an_addition_and_its_edit_differ_in_the_command_alone(addition: Change, edit: Change) -> None:
    assert as_edit(addition) == edit
    assert encode(addition).body == encode(edit).body
    assert encode(addition).command != encode(edit).command


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (AddVirtualServer(WEB, Scheduler.RR, 0), 0),
        (DeleteVirtualServer(WEB), errno.ESRCH),
        (DeleteRealServer(WEB, BACKEND), errno.ESRCH),
        (DeleteRealServer(WEB, BACKEND), errno.ENOENT),
    ],
)
def test_what_counts_as_done(change: Change, error: int) -> None:
    assert reason(change, Ack(1, error)) is None


@pytest.mark.parametrize(
    ("change", "ack", "words"),
    [
        (AddVirtualServer(WEB, Scheduler.MH, 0), Ack(1, errno.ENOENT), "`modprobe ip_vs_mh`"),
        (EditVirtualServer(WEB, Scheduler.SH, 0), Ack(1, errno.ENOENT), "`modprobe ip_vs_sh`"),
        (EditVirtualServer(WEB, Scheduler.SH, 0), Ack(1, errno.ESRCH), "no virtual server tcp://10.112.0.7:80"),
        (AddRealServer(WEB, BACKEND, RealServer(1)), Ack(1, errno.ESRCH), "no virtual server tcp://10.112.0.7:80"),
        (
            EditRealServer(WEB, BACKEND, RealServer(1)),
            Ack(1, errno.ENOENT),
            "10.2.0.1:8080 is not behind tcp://10.112.0.7:80",
        ),
        (
            AddRealServer(WEB, BACKEND, RealServer(1)),
            Ack(1, errno.EINVAL),
            "give a unicast address of the same IP version",
        ),
        (AddVirtualServer(WEB, Scheduler.RR, 0), Ack(1, errno.ENOMEM), "no memory left to add virtual server"),
        (AddVirtualServer(WEB, Scheduler.RR, 0), Ack(1, errno.EPROTONOSUPPORT), "was built without that protocol"),
        (DeleteVirtualServer(WEB), Ack(1, errno.EBUSY, "so it says"), "busy (so it says); look into `dmesg`"),
    ],
)
def test_reasons(change: Change, ack: Ack, words: str) -> None:
    assert words in str(reason(change, ack))
