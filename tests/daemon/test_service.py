"""SIGHUP and the consequences of new settings: a restart of the parts, a warning, or nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest

from mesh.api.status import WorkerStatus
from mesh.config.settings import Settings, parse_settings
from mesh.config.values import Network
from mesh.daemon import wiring as daemon
from mesh.daemon.service import DaemonService
from mesh.daemon.wiring import RunningDaemon, StartError
from mesh.host.facts import HostFacts
from mesh.host.overlap import HostRoute
from mesh.model.codes import Code
from mesh.model.errors import SettingsError


@dataclass
class Parts:
    """Stands for `daemon.run`: what it was run with, and how it is to end."""

    plane: str = "ipvs"
    settings: list[Settings] = field(default_factory=list)
    reloads: int = 0
    refuses: Callable[[Settings], bool] = lambda _: False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(
        self, settings: Settings, _: Mapping[str, str], stop: asyncio.Event, started: Callable[[RunningDaemon], None]
    ) -> None:
        if self.refuses(settings):
            raise StartError(Code.VIP_POOL_OVERLAPS, "the pool overlaps a route; choose another")
        self.settings.append(settings)
        status = WorkerStatus("1", "w1", self.plane, "a test", ())
        started(RunningDaemon(lambda: status, (), self.reload, lambda key: (key.address, key.port)))
        self.news.set()
        await stop.wait()

    def reload(self) -> None:
        self.reloads += 1


@pytest.fixture
async def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    made = Parts()
    monkeypatch.setattr(daemon, "run_daemon", made.run)
    return made


class File:
    """The settings file."""

    text = ""

    def read(self) -> Settings:
        return parse_settings(self.text, {}, hostname="w1")


@asynccontextmanager
async def serving(parts: Parts, file: File) -> AsyncIterator[DaemonService]:
    service = DaemonService(file.read, {})
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(service.run())
        await parts.news.wait()
        parts.news.clear()
        yield service
        running.cancel()


async def test_unchanged_settings_reread_the_sources(parts: Parts) -> None:
    async with serving(parts, File()) as service:
        service.reload()
    assert (parts.reloads, len(parts.settings)) == (1, 1)


async def test_new_settings_rebuild_the_parts(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file = File()
    async with serving(parts, file) as service:
        file.text = "[dns]\nttl = 7\n"
        service.reload()
        await parts.news.wait()
    assert [settings.dns_ttl for settings in parts.settings] == [5, 7]
    assert "changed settings: dns_ttl" in caplog.text


async def test_settings_with_a_mistake_change_nothing(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    file = File()
    async with serving(parts, file) as service:
        file.text = "[dns]\nttl = 0\nlissten = 1\n"
        service.reload()
    assert (parts.reloads, len(parts.settings)) == (0, 1)
    assert "did you mean [dns] listen?" in caplog.text
    assert "the settings are not applied; the previous ones stay in force" in caplog.text


async def test_settings_that_fail_to_start_are_replaced_by_the_previous_ones(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    file = File()
    parts.refuses = lambda settings: settings.dns_ttl == 7
    async with serving(parts, file) as service:
        file.text = "[dns]\nttl = 7\n"
        service.reload()
        await parts.news.wait()
    assert [settings.dns_ttl for settings in parts.settings] == [5, 5]
    assert "the pool overlaps a route; choose another; the previous settings are used again" in caplog.text


async def test_a_failed_first_start_has_no_previous_settings(parts: Parts) -> None:
    parts.refuses = lambda _: True
    with pytest.raises(ExceptionGroup) as raised:
        await DaemonService(File().read, {}).run()
    assert raised.group_contains(StartError)


async def test_changes_that_would_drop_proxy_connections_wait_for_a_restart(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    parts.plane = "userspace"
    file = File()
    async with serving(parts, file) as service:
        file.text = "[dns]\nttl = 7\n"
        service.reload()
    assert (parts.reloads, len(parts.settings)) == (1, 1)
    assert "need a restart, which ends the proxy's connections: dns_ttl" in caplog.text


async def test_invalid_settings_at_the_start_are_raised() -> None:
    file = File()
    file.text = "nonsense"
    with pytest.raises(SettingsError):
        DaemonService(file.read, {})


async def test_new_settings_with_a_pool_that_overlaps_are_not_applied(
    parts: Parts, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def facts(_: Network) -> HostFacts:
        return HostFacts(routes=(HostRoute(ip_network("10.112.0.0/12"), "eth1"),))

    monkeypatch.setattr(daemon, "read_host_facts", facts)
    file = File()
    async with serving(parts, file) as service:
        for pool, ttl in (("10.113.0.0/16", 5), ("10.112.0.0/16", 7)):
            file.text = f'[vip]\npool = "{pool}"\n[dns]\nttl = {ttl}\n'
            service.reload()
            await parts.news.wait()
            parts.news.clear()
    started = [(str(settings.vip_pool), settings.dns_ttl) for settings in parts.settings]
    assert started == [("10.112.0.0/16", 5), ("10.112.0.0/16", 5), ("10.112.0.0/16", 7)], "only a new pool is refused"
    assert "[vip] pool 10.113.0.0/16: overlaps route 10.112.0.0/12 dev eth1 of this host" in caplog.text
