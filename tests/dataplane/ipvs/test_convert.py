"""Conversion of what IPVS lists and replies into tables and reasons."""

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
from mesh.model.service import Forwarding, Scheduler, SchedulerFlag
from mesh.model.table import RealKey, RealServer, Table, VirtualServer
from tests.builders import WEB_KEY

BACKEND = RealKey("10.2.0.1", 8080)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        pytest.param(IpvsService(WEB_KEY, "rr"), VirtualServer(Scheduler.RR), id="plain"),
        pytest.param(IpvsService(WEB_KEY, "rr", 0, 300), VirtualServer(Scheduler.RR), id="a timeout without the flag"),
        pytest.param(IpvsService(WEB_KEY, "wlc", PERSISTENT, 300), VirtualServer(Scheduler.WLC, 300), id="persistent"),
        pytest.param(
            IpvsService(WEB_KEY, "lblc"), VirtualServer(Scheduler.WRR, FOREIGN_VALUE), id="a scheduler that is not ours"
        ),
        pytest.param(
            IpvsService(WEB_KEY, "lblc", PERSISTENT, 300),
            VirtualServer(Scheduler.WRR, FOREIGN_VALUE),
            id="such a one, persistent",
        ),
        pytest.param(
            IpvsService(WEB_KEY, "mh", FALLBACK | BY_PORT | PERSISTENT, 60),
            VirtualServer(Scheduler.MH, 60, flags=frozenset(SchedulerFlag)),
            id="the flags of mh",
        ),
        pytest.param(
            IpvsService(WEB_KEY, "wlc", FALLBACK),
            VirtualServer(Scheduler.WLC, FOREIGN_VALUE, flags=frozenset({SchedulerFlag.FALLBACK})),
            id="flags that its scheduler does not have",
        ),
        pytest.param(
            IpvsService(WEB_KEY, "rr", 4), VirtualServer(Scheduler.RR, FOREIGN_VALUE), id="one packet scheduling"
        ),
        pytest.param(
            IpvsService(WEB_KEY, "rr", PERSISTENT, 300, 24),
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
    found = to_virtual_server(IpvsService(WEB_KEY, "wrr"), [IpvsDestination(BACKEND, 3, method, 100, 80, active=3)])
    assert found.real_servers == {BACKEND: expected}


def test_another_forwarding_method_is_corrected() -> None:
    found = to_virtual_server(IpvsService(WEB_KEY, "wrr"), [IpvsDestination(BACKEND, 1, TUNNEL, active=3)])

    assert diff_tables(
        Table({WEB_KEY: found}), Table({WEB_KEY: VirtualServer(real_servers={BACKEND: RealServer(1)})})
    ) == (EditRealServer(WEB_KEY, BACKEND, RealServer(1)),)


def test_settings_outside_any_plan_are_corrected() -> None:
    found = to_virtual_server(IpvsService(WEB_KEY, "lblc"), [])

    assert diff_tables(Table({WEB_KEY: found}), Table({WEB_KEY: VirtualServer()})) == (
        EditVirtualServer(WEB_KEY, Scheduler.WRR, 0),
    )


@pytest.mark.parametrize(
    ("addition", "edit"),
    [
        (AddVirtualServer(WEB_KEY, Scheduler.RR, 5), EditVirtualServer(WEB_KEY, Scheduler.RR, 5)),
        (AddRealServer(WEB_KEY, BACKEND, RealServer(3)), EditRealServer(WEB_KEY, BACKEND, RealServer(3))),
    ],
)
def test_an_addition_and_its_edit_differ_only_in_the_command(addition: IpvsChange, edit: IpvsChange) -> None:
    assert as_edit(addition) == edit
    assert encode_change(addition).body == encode_change(edit).body
    assert encode_change(addition).command != encode_change(edit).command


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (AddVirtualServer(WEB_KEY, Scheduler.RR, 0), 0),
        (DeleteVirtualServer(WEB_KEY), errno.ESRCH),
        (DeleteRealServer(WEB_KEY, BACKEND), errno.ESRCH),
        (DeleteRealServer(WEB_KEY, BACKEND), errno.ENOENT),
    ],
)
def test_errors_that_count_as_success(change: IpvsChange, error: int) -> None:
    assert failure_reason(change, NetlinkAck(1, error)) is None


@pytest.mark.parametrize(
    ("change", "ack", "words"),
    [
        (AddVirtualServer(WEB_KEY, Scheduler.MH, 0), NetlinkAck(1, errno.ENOENT), "`modprobe ip_vs_mh`"),
        (EditVirtualServer(WEB_KEY, Scheduler.SH, 0), NetlinkAck(1, errno.ENOENT), "`modprobe ip_vs_sh`"),
        (
            EditVirtualServer(WEB_KEY, Scheduler.SH, 0),
            NetlinkAck(1, errno.ESRCH),
            "no virtual server tcp://10.112.0.7:80",
        ),
        (
            AddRealServer(WEB_KEY, BACKEND, RealServer(1)),
            NetlinkAck(1, errno.ESRCH),
            "no virtual server tcp://10.112.0.7:80",
        ),
        (
            EditRealServer(WEB_KEY, BACKEND, RealServer(1)),
            NetlinkAck(1, errno.ENOENT),
            "10.2.0.1:8080 is not behind tcp://10.112.0.7:80",
        ),
        (
            AddRealServer(WEB_KEY, BACKEND, RealServer(1)),
            NetlinkAck(1, errno.EINVAL),
            "give a unicast address of the same IP version",
        ),
        (
            AddVirtualServer(WEB_KEY, Scheduler.RR, 0),
            NetlinkAck(1, errno.ENOMEM),
            "no memory left to add virtual server",
        ),
        (
            AddVirtualServer(WEB_KEY, Scheduler.RR, 0),
            NetlinkAck(1, errno.EPROTONOSUPPORT),
            "was built without that protocol",
        ),
        (
            DeleteVirtualServer(WEB_KEY),
            NetlinkAck(1, errno.EBUSY, "so it says"),
            "busy (so it says); look into `dmesg`",
        ),
    ],
)
def test_reasons(change: IpvsChange, ack: NetlinkAck, words: str) -> None:
    assert words in str(failure_reason(change, ack))
