"""Which data plane a worker uses, and the reason that is reported."""

import pytest

from mesh.config.settings import parse_settings
from mesh.daemon.wiring import choose_data_plane
from mesh.dataplane import DataPlaneError
from mesh.dataplane.ownership import PublishedPorts
from mesh.host.vip_interface import LoopbackAddresses
from mesh.model.claims import Claims


@pytest.mark.parametrize(
    ("driver", "pool", "no_ipvs", "no_nftables", "name", "reason"),
    [
        ("auto", "10.112.0.0/16", None, None, "ipvs", "this kernel has IPVS"),
        ("auto", "10.112.0.0/16", "no IPVS", None, "nftables", "no IPVS"),
        ("auto", "10.112.0.0/16", "no IPVS", "no nft", "userspace", "no IPVS; no nft"),
        ("auto", "127.112.0.0/16", None, None, "userspace", "the pool 127.112.0.0/16 is on loopback"),
        ("nftables", "10.112.0.0/16", None, None, "nftables", "asked for by [dataplane] driver"),
        ("userspace", "10.112.0.0/16", None, None, "userspace", "asked for by [dataplane] driver"),
        ("ipvs", "10.112.0.0/16", "no IPVS", None, None, "driver is ipvs, but no IPVS"),
        ("nftables", "10.112.0.0/16", None, "no nft", None, "driver is nftables, but no nft"),
    ],
)
async def test_the_first_available_data_plane_or_the_configured_one(
    monkeypatch: pytest.MonkeyPatch,
    *,
    driver: str,
    pool: str,
    no_ipvs: str | None,
    no_nftables: str | None,
    name: str | None,
    reason: str,
) -> None:
    async def ipvs() -> str | None:
        return no_ipvs

    async def nftables(version: int) -> str | None:
        assert version == 4
        return no_nftables

    monkeypatch.setattr("mesh.dataplane.ipvs.plane.unavailable_reason", ipvs)
    monkeypatch.setattr("mesh.dataplane.nftables.plane.unavailable_reason", nftables)
    text = f'[dataplane]\ndriver = "{driver}"\n[vip]\npool = "{pool}"'
    settings = parse_settings(text, {}, hostname="w1")
    chosen = choose_data_plane(settings, LoopbackAddresses(), PublishedPorts(Claims, frozenset))
    if name is None:
        with pytest.raises(DataPlaneError, match=reason):
            await chosen
        return
    plane, why = await chosen
    assert plane.name == name
    assert reason in why
    await plane.close()
