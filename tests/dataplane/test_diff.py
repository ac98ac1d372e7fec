"""The difference of two tables: its result, and the safety of every step on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dataplane.diff import changed_virtual_servers, diff_tables, reuse_equal_servers
from mesh.dataplane.operations import AddVirtualServer, DeleteVirtualServer, OperationRefusedError, apply_operations
from mesh.model.service import Forwarding, Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer

ADDRESSES = ["10.112.0.1", "10.112.0.2", "10.112.0.3"]
REALS = [RealKey(f"10.2.0.{n}", 80) for n in range(1, 5)]
KEY = VirtualKey("10.112.0.1", 80, Transport.TCP)
KEYS = st.builds(VirtualKey, st.sampled_from(ADDRESSES), st.sampled_from([80, 443]), st.sampled_from(Transport))
SERVERS = st.builds(
    VirtualServer,
    st.sampled_from([Scheduler.RR, Scheduler.WRR]),
    st.sampled_from([0, 60]),
    st.dictionaries(
        st.sampled_from(REALS),
        st.builds(RealServer, st.integers(0, 2), st.sampled_from(Forwarding), st.sampled_from([0, 9])),
        max_size=4,
    ),
    st.frozensets(st.sampled_from(SchedulerFlag)),
)
TABLES = st.builds(
    Table, st.dictionaries(KEYS, SERVERS, max_size=5), st.frozensets(st.sampled_from(ADDRESSES), max_size=3)
)
"""A small world, so that two tables often share a virtual server, a real server, a VIP."""


@given(TABLES, TABLES)
def test_applying_the_difference_gives_the_desired_table(before: Table, after: Table) -> None:
    assert apply_operations(before, diff_tables(before, after)) == after


@given(TABLES, TABLES)
def test_changing_only_the_differing_servers_gives_the_whole_table(before: Table, after: Table) -> None:
    keys = changed_virtual_servers(before, after)
    part = apply_operations(before.part(keys), diff_tables(before.part(keys), after.part(keys)))
    assert before.changed(keys, part) == after
    assert changed_virtual_servers(after, after) == frozenset()


@given(TABLES, TABLES)
def test_reused_servers_give_an_equal_table(observed: Table, desired: Table) -> None:
    found = reuse_equal_servers(observed, desired)
    assert found == observed
    for key, server in desired.virtual_servers.items():
        assert (found.virtual_servers.get(key) is server) == (observed.virtual_servers.get(key) == server)


@given(TABLES)
def test_equal_tables_have_no_difference(table: Table) -> None:
    assert diff_tables(table, table) == ()


@given(TABLES, TABLES)
def test_a_remaining_server_always_keeps_a_real_server(before: Table, after: Table) -> None:
    table = before
    for operation in diff_tables(before, after):
        table = apply_operations(table, [operation])
        for key in before.virtual_servers.keys() & after.virtual_servers.keys():
            ends = (before.virtual_servers[key].real_servers, after.virtual_servers[key].real_servers)
            now = table.virtual_servers[key].real_servers
            if all(ends):
                assert now, f"{key} has no real server after {operation}"
            if all(any(real.weight for real in reals.values()) for reals in ends):
                assert any(real.weight for real in now.values()), f"{key} has only weight 0 after {operation}"


@given(TABLES, TABLES)
def test_remaining_servers_are_edited_and_never_recreated(before: Table, after: Table) -> None:
    both = before.virtual_servers.keys() & after.virtual_servers.keys()
    for operation in diff_tables(before, after):
        if isinstance(operation, AddVirtualServer | DeleteVirtualServer):
            assert operation.key not in both


@given(TABLES, TABLES)
def test_a_vip_is_bound_after_its_servers_exist_and_unbound_before_they_are_removed(
    before: Table, after: Table
) -> None:
    table = before
    for operation in diff_tables(before, after):
        table = apply_operations(table, [operation])
        for address in table.vips - before.vips:
            for key, server in after.virtual_servers.items():
                if key.address == address:
                    assert table.virtual_servers.get(key) == server, f"{address} is bound before {key} is complete"
        for address in before.vips - after.vips:
            gone = [k for k in before.virtual_servers if k.address == address and k not in table.virtual_servers]
            assert not gone or address not in table.vips, f"{gone} left while {address} was bound"


@given(TABLES, TABLES)
def test_the_order_of_a_mapping_does_not_matter(before: Table, after: Table) -> None:
    turned = Table(dict(reversed(list(after.virtual_servers.items()))), after.vips)
    assert diff_tables(before, turned) == diff_tables(before, after)


def test_apply_refuses_the_same_operations_as_a_kernel() -> None:
    (delete,) = diff_tables(Table({KEY: VirtualServer()}), Table())
    with pytest.raises(OperationRefusedError, match=r"delete virtual server tcp://10\.112\.0\.1:80"):
        apply_operations(Table(), [delete])


def test_a_new_service_reads_in_the_order_of_its_effects() -> None:
    table = Table(
        {KEY: VirtualServer(real_servers={REALS[1]: RealServer(3), REALS[0]: RealServer(1)})}, frozenset([KEY.address])
    )
    assert [str(operation) for operation in diff_tables(Table(), table)] == [
        "add virtual server tcp://10.112.0.1:80, scheduler wrr",
        "add real server 10.2.0.1:80 to tcp://10.112.0.1:80, weight 1",
        "add real server 10.2.0.2:80 to tcp://10.112.0.1:80, weight 3",
        "bind VIP 10.112.0.1",
    ]


def test_a_change_raises_before_it_lowers_and_lowers_before_it_deletes() -> None:
    before = Table(
        {KEY: VirtualServer(real_servers={REALS[0]: RealServer(1), REALS[1]: RealServer(5), REALS[2]: RealServer(1)})}
    )
    after = Table(
        {
            KEY: VirtualServer(
                Scheduler.RR, 60, {REALS[0]: RealServer(2), REALS[1]: RealServer(1), REALS[3]: RealServer(1)}
            )
        }
    )
    assert [str(operation) for operation in diff_tables(before, after)] == [
        "set scheduler rr, persistence 60 s of tcp://10.112.0.1:80",
        "add real server 10.2.0.4:80 to tcp://10.112.0.1:80, weight 1",
        "set weight 2 of real server 10.2.0.1:80 of tcp://10.112.0.1:80",
        "set weight 1 of real server 10.2.0.2:80 of tcp://10.112.0.1:80",
        "delete real server 10.2.0.3:80 of tcp://10.112.0.1:80",
    ]
