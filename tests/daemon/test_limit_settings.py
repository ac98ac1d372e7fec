"""The settings of bounds reach the parts that they bound."""

import asyncio
from contextlib import suppress

from mesh.config.settings import Settings, parse_settings
from mesh.daemon.wiring import choose_data_plane, descriptor_shares
from mesh.dataplane.ownership import PublishedPorts
from mesh.dataplane.userspace import UserspaceDataPlane
from mesh.health.checks import network_checks
from mesh.host.rlimits import DescriptorShares, share_descriptors
from mesh.host.vip_interface import LoopbackAddresses
from mesh.model.claims import ClaimPace, Claims
from mesh.model.probe import Probe, ProbeKind
from mesh.sources.compose.limits import ComposeLimits, compose_limits


def read(text: str = "") -> Settings:
    return parse_settings(text, {}, hostname="w1")


def test_the_defaults_are_those_of_the_parts() -> None:
    settings = read()
    assert descriptor_shares(settings) == DescriptorShares()
    assert compose_limits(settings) == ComposeLimits()
    assert ClaimPace(settings.claims_new_at_once, settings.claims_new_per_minute) == ClaimPace()


def test_connections_and_checks_follow_the_settings_within_the_limit_of_files() -> None:
    settings = read(
        """
        [probes]
        concurrent = 2000
        [dns]
        tcp_connections = 500
        [admin]
        connections = 10
        [dataplane]
        proxy_connections = 20000
        proxy_sessions = 100
        """
    )
    full = descriptor_shares(settings)
    assert full == DescriptorShares(2000, 500, 10, 20_000, 100)
    assert share_descriptors(1 << 20, 1, full) == full
    small = share_descriptors(1024, 1, full)
    assert small.checks < 400
    assert small.admin_connections == 10


def test_limits_of_compose_files_follow_the_settings() -> None:
    settings = read("[source.compose]\nfile_bytes = 5000\nvalues = 200\nendpoints = 9\nproblems = 7")
    assert compose_limits(settings) == ComposeLimits(file_bytes=5000, values=200, endpoints=9, problems=7)
    assert (compose_limits(settings).entries, compose_limits(settings).characters) == (800, 10_000)


async def test_the_proxy_ends_what_is_idle_for_as_long_as_the_settings_say() -> None:
    settings = read('[dataplane]\ndriver = "userspace"\nproxy_connections = 100\ntcp_idle = 11\nudp_idle = 3')
    published = PublishedPorts(Claims, frozenset)
    plane, _ = await choose_data_plane(settings, LoopbackAddresses(), published)
    assert isinstance(plane, UserspaceDataPlane)
    assert plane.limits == (100, 8192, 11.0, 3.0)


async def test_a_text_is_looked_for_in_as_much_of_the_body_as_the_setting_says() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2005\r\n\r\n" + b"x" * 2000 + b"ready")
            await writer.drain()
        writer.close()

    probe = Probe(ProbeKind.HTTP, None, expect_body="ready", timeout=30.0)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await network_checks()[ProbeKind.HTTP]("127.0.0.1", port, probe)).ok
        assert not (await network_checks(1024)[ProbeKind.HTTP]("127.0.0.1", port, probe)).ok
