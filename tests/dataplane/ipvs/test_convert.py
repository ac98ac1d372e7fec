"""What IPVS lists and answers, in the words of the mesh."""

import errno

import pytest

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs.convert import (
    FOREIGN_VALUE,
    IpvsChange,
    as_edit,
    encode_change,
    failure_reason,
    to_virtual_server,
)
from mesh.dataplane.ipvs.messages import (
    BY_PORT,
    DIRECT,
    FALLBACK,
    MASQUERADE,
    PERSISTENT,
    TUNNEL,
    IpvsDestination,
    IpvsService,
)
from mesh.dataplane.netlink import NetlinkAck
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
        pytest.param(IpvsService(WEB, "rr"), VirtualServer(Scheduler.RR), id="plain"),
        pytest.param(IpvsService(WEB, "rr", 0, 300), VirtualServer(Scheduler.RR), id="a timeout without the flag"),
        pytest.param(IpvsService(WEB, "wlc", PERSISTENT, 300), VirtualServer(Scheduler.WLC, 300), id="persistent"),
        pytest.param(
            IpvsService(WEB, "lblc"), VirtualServer(Scheduler.WRR, FOREIGN_VALUE), id="a scheduler that is not ours"
        ),
        pytest.param(
            IpvsService(WEB, "lblc", PERSISTENT, 300),
            VirtualServer(Scheduler.WRR, FOREIGN_VALUE),
            id="such a one, persistent",
        ),
        pytest.param(
            IpvsService(WEB, "mh", FALLBACK | BY_PORT | PERSISTENT, 60),
            VirtualServer(Scheduler.MH, 60, flags=frozenset(SchedulerFlag)),
            id="the flags of mh",
        ),
        pytest.param(
            IpvsService(WEB, "wlc", FALLBACK),
            VirtualServer(Scheduler.WLC, FOREIGN_VALUE, flags=frozenset({SchedulerFlag.FALLBACK})),
            id="flags that its scheduler does not have",
        ),
        pytest.param(IpvsService(WEB, "rr", 4), VirtualServer(Scheduler.RR, FOREIGN_VALUE), id="one packet scheduling"),
        pytest.param(
            IpvsService(WEB, "rr", PERSISTENT, 300, 24),
            VirtualServer(Scheduler.RR, FOREIGN_VALUE),
            id="persistent by client network",
        ),
    ],
)
def test_virtual_servers(service: IpvsService, expected: VirtualServer) -> None:
    assert to_virtual_server(service, ()) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (MASQUERADE, RealServer(3, Forwarding.MASQUERADE, 100, 80)),
        (TUNNEL, RealServer(3, Forwarding.TUNNEL, 100, 80)),
        (DIRECT, RealServer(3, Forwarding.DIRECT, 100, 80)),
        (1, RealServer(FOREIGN_VALUE, Forwarding.MASQUERADE, 100, 80)),
    ],
    ids=["masquerade", "tunnel", "direct", "on this host, which no plan asks for"],
)
def test_real_servers(method: int, expected: RealServer) -> None:
    found = to_virtual_server(IpvsService(WEB, "wrr"), [IpvsDestination(BACKEND, 3, method, 100, 80, active=3)])
    assert found.real_servers == {BACKEND: expected}


def test_another_forwarding_is_set_right() -> None:
    found = to_virtual_server(IpvsService(WEB, "wrr"), [IpvsDestination(BACKEND, 1, TUNNEL, active=3)])

    assert diff_tables(Table({WEB: found}), Table({WEB: VirtualServer(real_servers={BACKEND: RealServer(1)})})) == (
        EditRealServer(WEB, BACKEND, RealServer(1)),
    )


def test_settings_that_no_plan_asks_for_are_set_right() -> None:
    found = to_virtual_server(IpvsService(WEB, "lblc"), [])

    assert diff_tables(Table({WEB: found}), Table({WEB: VirtualServer()})) == (
        EditVirtualServer(WEB, Scheduler.WRR, 0),
    )


@pytest.mark.parametrize(
    ("addition", "edit"),
    [
        (AddVirtualServer(WEB, Scheduler.RR, 5), EditVirtualServer(WEB, Scheduler.RR, 5)),
        (AddRealServer(WEB, BACKEND, RealServer(3)), EditRealServer(WEB, BACKEND, RealServer(3))),
    ],
)
def test_an_addition_and_its_edit_differ_in_the_command_alone(addition: IpvsChange, edit: IpvsChange) -> None:
    assert as_edit(addition) == edit
    assert encode_change(addition).body == encode_change(edit).body
    assert encode_change(addition).command != encode_change(edit).command


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (AddVirtualServer(WEB, Scheduler.RR, 0), 0),
        (DeleteVirtualServer(WEB), errno.ESRCH),
        (DeleteRealServer(WEB, BACKEND), errno.ESRCH),
        (DeleteRealServer(WEB, BACKEND), errno.ENOENT),
    ],
)
def test_what_counts_as_done(change: IpvsChange, error: int) -> None:
    assert failure_reason(change, NetlinkAck(1, error)) is None


@pytest.mark.parametrize(
    ("change", "ack", "words"),
    [
        (AddVirtualServer(WEB, Scheduler.MH, 0), NetlinkAck(1, errno.ENOENT), "`modprobe ip_vs_mh`"),
        (EditVirtualServer(WEB, Scheduler.SH, 0), NetlinkAck(1, errno.ENOENT), "`modprobe ip_vs_sh`"),
        (EditVirtualServer(WEB, Scheduler.SH, 0), NetlinkAck(1, errno.ESRCH), "no virtual server tcp://10.112.0.7:80"),
        (
            AddRealServer(WEB, BACKEND, RealServer(1)),
            NetlinkAck(1, errno.ESRCH),
            "no virtual server tcp://10.112.0.7:80",
        ),
        (
            EditRealServer(WEB, BACKEND, RealServer(1)),
            NetlinkAck(1, errno.ENOENT),
            "10.2.0.1:8080 is not behind tcp://10.112.0.7:80",
        ),
        (
            AddRealServer(WEB, BACKEND, RealServer(1)),
            NetlinkAck(1, errno.EINVAL),
            "give a unicast address of the same IP version",
        ),
        (AddVirtualServer(WEB, Scheduler.RR, 0), NetlinkAck(1, errno.ENOMEM), "no memory left to add virtual server"),
        (
            AddVirtualServer(WEB, Scheduler.RR, 0),
            NetlinkAck(1, errno.EPROTONOSUPPORT),
            "was built without that protocol",
        ),
        (DeleteVirtualServer(WEB), NetlinkAck(1, errno.EBUSY, "so it says"), "busy (so it says); look into `dmesg`"),
    ],
)
def test_reasons(change: IpvsChange, ack: NetlinkAck, words: str) -> None:
    assert words in str(failure_reason(change, ack))
