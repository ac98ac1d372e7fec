"""dnsmasq as upstream, queried through our server by dig."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from meshdns.forwarder import Forwarder
from meshdns.server import NameServer
from meshdns.upstreams import Upstreams
from meshdns.zone import Zone
from tests.meshdns.servers import dnsmasq
from tests.system.e2e.programs import call, eventually, free_port

RECORDS = (
    "--host-record=web.test,192.0.2.7,2001:db8::7,300",
    "--cname=www.test,web.test,300",
    "--txt-record=text.test,a text",
    "--address=/wild.test/192.0.2.9",
    "--local=/test/",
    *(f"--host-record=many.test,192.0.2.{number},300" for number in range(200)),
)


@asynccontextmanager
async def serving(upstreams: Upstreams) -> AsyncIterator[tuple[NameServer, Forwarder]]:
    forwarder = Forwarder(upstreams)
    server = NameServer([("127.0.0.1", 0)], Zone.build({}, ["mesh.internal"]), forwarder)
    await server.start()
    try:
        yield server, forwarder
    finally:
        await server.stop()


async def dig(server: NameServer, *words: str) -> str:
    host, port = server.addresses[0]
    code, output = await call("dig", f"@{host}", "-p", str(port), "+time=5", "+tries=1", *words)
    assert code == 0, output
    return output


async def test_dnsmasq(tmp_path: Path) -> None:
    async with dnsmasq(tmp_path, *RECORDS) as address, serving(Upstreams([address])) as (server, forwarder):
        for transport in ("+notcp", "+tcp"):
            for _ in "asked", "cached":
                assert (await dig(server, "www.test", "+short", transport)).split() == ["web.test.", "192.0.2.7"]
                assert (await dig(server, "WWW.test", "AAAA", "+short", transport)).split()[-1] == "2001:db8::7"
        assert forwarder.counters.asked == 2, "each question once"
        assert (await dig(server, "text.test", "TXT", "+short")).strip() == '"a text"'
        assert (await dig(server, "any.thing.wild.test", "+short")).strip() == "192.0.2.9"
        assert "status: NXDOMAIN" in await dig(server, "nope.test")
        assert "status: NOERROR" in await dig(server, "web.test", "MX")
        output = await dig(server, "many.test")
        assert "Truncated, retrying in TCP mode" in output
        assert output.count("192.0.2.") == 200
        output = await dig(server, "many.test", "+ignore", "+noedns")
        assert (output.count("192.0.2."), " tc " in output) == (30, True), "as many as fit: for clients without TCP"
        assert "status: REFUSED" in await dig(server, "example.com"), "what the only upstream says"


async def test_one_upstream_for_a_domain_and_another_for_the_rest(tmp_path: Path) -> None:
    (tmp_path / "corp").mkdir()
    async with (
        dnsmasq(tmp_path, *RECORDS) as rest,
        dnsmasq(tmp_path / "corp", "--host-record=dc1.corp.test,10.1.1.9", "--local=/corp.test/") as corp,
        serving(Upstreams([rest], {"corp.test": [corp]})) as (server, _),
    ):
        assert (await dig(server, "dc1.corp.test", "+short")).strip() == "10.1.1.9"
        assert "status: NXDOMAIN" in await dig(server, "web.corp.test")
        assert (await dig(server, "web.test", "+short")).strip() == "192.0.2.7"


async def test_without_its_upstream_cached_answers_are_served(tmp_path: Path) -> None:
    port = free_port()
    async with serving(Upstreams([("127.0.0.1", port)])) as (server, forwarder):
        async with dnsmasq(tmp_path, "--host-record=web.test,192.0.2.7,1", port=port):
            assert (await dig(server, "web.test", "+short")).strip() == "192.0.2.7"

        async def ask() -> str:
            return await dig(server, "web.test")

        output = await eventually(ask, lambda said: "EDE: 3 (Stale Answer)" in said)
        assert re.search(r"^web\.test\.\s+30\s+IN\s+A\s+192\.0\.2\.7$", output, re.MULTILINE), output
        assert forwarder.counters.stale >= 1
        async with dnsmasq(tmp_path, "--host-record=other.test,192.0.2.8", port=port):
            assert (await dig(server, "other.test", "+short")).strip() == "192.0.2.8", "it is back"
