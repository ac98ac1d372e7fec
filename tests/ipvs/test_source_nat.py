"""Source NAT on real IPVS: each rule is needed for what it is there for, and elsewhere clients keep their address."""

import re
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.host.source_nat import SourceNat
from mesh.model import Address, Claims, Transport
from tests.ipvs.source_nat_lab import (
    A6,
    ABROAD,
    ABROAD6,
    ADDRESSES,
    CLIENT,
    CLIENT6,
    HERE,
    PUBLISHED,
    SHUT,
    TO_PUBLISHED,
    TO_PUBLISHED6,
    TO_VIP,
    TO_VIP6,
    A,
    Asking,
    B,
    Places,
    Where,
    ask,
    lead_to,
    lost,
)
from tests.netns import need, private_network, run

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(180)]

CLAIMS = Claims(ports={(transport, PUBLISHED): ("web.shop.test", 80) for transport in Transport})
CHANGED = "nftables chain {} vipmesh source is as it must be, was changed"
VIP_AND_PUBLISHED = pytest.mark.parametrize("where", [TO_VIP, TO_PUBLISHED], ids=["vip", "published"])
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
DOCS = Path(__file__).parent.parent.parent / "docs" / "source-nat.md"


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    """One lab for all: every test asks the same service, whose one endpoint it chooses."""
    need("nft", "nftables")
    with private_network():
        places = Places()
        yield places
        places.close()


@pytest.fixture
async def lab(places: Places) -> AsyncIterator[Places]:
    async with places.telling():
        yield places


@pytest.fixture
async def nat(lab: Places) -> AsyncIterator[SourceNat]:
    """Source NAT as the daemon sets it up."""
    nat = SourceNat(ip_network("10.112.0.0/16"))
    await nat.mend(ADDRESSES, CLAIMS)
    yield nat
    await nat.remove()


def delete_rule(chain: str, text: str, table: str = "ip vipmesh") -> None:
    """Exactly the one rule that has this in it."""
    lines = run("nft", "-a", "list", "chain", *table.split(), chain).splitlines()
    (handle,) = [line.rpartition("handle ")[2] for line in lines if text in line]
    run("nft", "delete", "rule", *table.split(), chain, "handle", handle)


@dataclass(frozen=True, slots=True)
class Way:
    """From where to where, and what the endpoint sees with the rule that it needs."""

    rule: str
    client: Address
    endpoint: Address
    seen: Address


@VIP_AND_PUBLISHED
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(Way("elsewhere", CLIENT, ABROAD, "10.3.0.254"), id="elsewhere"),
        pytest.param(Way("elsewhere", ABROAD, ABROAD, "10.3.0.254"), id="elsewhere-in-one-network"),
        pytest.param(Way("hairpin", A, A, "10.2.0.254"), id="hairpin-itself"),
        pytest.param(Way("hairpin", A, B, "10.2.0.254"), id="hairpin-neighbour"),
        pytest.param(Way("host", HERE, SHUT, "10.2.0.254"), id="host"),
    ],
)
async def test_without_its_rule_the_reply_is_lost(lab: Places, nat: SourceNat, path: Way, where: Where) -> None:
    lead_to(path.endpoint)
    assert await ask(lab, path.client, where) == path.seen
    assert await ask(lab, path.client, where, socket.SOCK_DGRAM) == path.seen

    delete_rule("source", f'comment "{path.rule}: ')
    assert await lost(lab, path.client, where)

    assert await nat.mend(ADDRESSES, CLAIMS) == [CHANGED.format("ip")]
    assert await ask(lab, path.client, where) == path.seen


@KINDS
@VIP_AND_PUBLISHED
@pytest.mark.parametrize(
    ("endpoint", "client"),
    [
        pytest.param(A, CLIENT, id="a container"),
        pytest.param(HERE, CLIENT, id="the worker itself"),
        pytest.param(HERE, A, id="a container asks the worker itself"),
        pytest.param(A, ABROAD, id="a host of another network"),
    ],
)
@pytest.mark.usefixtures("nat")
async def test_a_client_keeps_its_address_where_the_reply_comes_back(
    lab: Places, endpoint: Address, client: Address, where: Where, kind: socket.SocketKind
) -> None:
    lead_to(endpoint)
    assert await ask(lab, client, where, kind) == client


@KINDS
@VIP_AND_PUBLISHED
@pytest.mark.usefixtures("nat")
async def test_the_host_reaches_endpoints_anywhere(lab: Places, where: Where, kind: socket.SocketKind) -> None:
    for endpoint, seen in ((A, "10.2.0.254"), (ABROAD, "10.3.0.254"), (HERE, where[0])):
        lead_to(endpoint)
        assert await ask(lab, HERE, where, kind) == seen


async def test_networks_that_the_settings_name_decide(lab: Places) -> None:
    nat = SourceNat(ip_network("10.112.0.0/16"), [])
    await nat.mend(ADDRESSES, CLAIMS)
    lead_to(A)
    assert await ask(lab, CLIENT, TO_VIP) == "10.2.0.254"
    await nat.remove()


@pytest.mark.parametrize("where", [TO_VIP6, TO_PUBLISHED6], ids=["vip", "published"])
async def test_ipv6(lab: Places, where: Where) -> None:
    nat = SourceNat(ip_network("fd00:112::/64"))
    await nat.mend(ADDRESSES, CLAIMS)
    lead_to(A6)
    assert await ask(lab, CLIENT6, where) == CLIENT6
    assert await ask(lab, A6, where) == "fd00:2::fe"
    lead_to(ABROAD6)
    assert await ask(lab, CLIENT6, where, socket.SOCK_DGRAM) == "fd00:3::fe"
    assert await ask(lab, CLIENT6, where) == "fd00:3::fe"
    delete_rule("source", 'comment "elsewhere: ', "ip6 vipmesh")
    assert await lost(lab, CLIENT6, where)
    assert await nat.mend(ADDRESSES, CLAIMS) == [CHANGED.format("ip6")]
    assert await nat.remove() == ["ip6"]


async def test_connections_outlive_a_flushed_ruleset(lab: Places, nat: SourceNat) -> None:
    for endpoint, seen in ((A, CLIENT), (ABROAD, "10.3.0.254")):
        lead_to(endpoint)
        established = Asking(lab, CLIENT)
        await established.connect(TO_VIP)
        assert await established.seen_at() == seen
        run("nft", "flush", "ruleset")
        assert await nat.mend(ADDRESSES, CLAIMS) == ["nftables table ip vipmesh is there, was missing"]
        assert await established.seen_at() == seen
        established.close()


@pytest.mark.parametrize(
    ("chain", "rule"),
    [("input", "ip daddr 10.112.0.0/16"), ("output", "ct original ip daddr"), ("forward", "ct state")],
)
@pytest.mark.usefixtures("nat")
async def test_the_firewall_of_the_docs_lets_it_through_and_each_of_its_lines_counts(
    lab: Places, chain: str, rule: str
) -> None:
    (firewall,) = re.findall(r"```nft\n(table inet filter \{.*?)```", DOCS.read_text(), re.S)
    run("nft", "-f", "-", given=firewall)
    try:
        lead_to(A)
        assert await ask(lab, CLIENT, TO_VIP) == CLIENT
        assert await ask(lab, CLIENT, TO_PUBLISHED) == CLIENT
        lead_to(ABROAD)
        assert await ask(lab, CLIENT, TO_VIP, socket.SOCK_DGRAM) == "10.3.0.254"
        assert await ask(lab, CLIENT, TO_PUBLISHED) == "10.3.0.254"
        delete_rule(chain, rule, "inet filter")
        assert await lost(lab, CLIENT, TO_VIP)
    finally:
        run("nft", "delete", "table", "inet", "filter")
