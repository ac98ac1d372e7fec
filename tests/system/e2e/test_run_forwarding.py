"""`vipmesh run` as the name server of a host: other names, domains with their own servers, and own names."""

import re
from pathlib import Path

from dnslib import CNAME, QTYPE, RCODE, RR, DNSRecord

from tests.meshdns.upstream import address, good, many, upstream
from tests.system.e2e.programs import call, eventually, free_port, status, vipmesh


async def test_settings_choose_the_upstreams_and_own_names_are_never_forwarded(tmp_path: Path) -> None:
    port = free_port()
    async with upstream(address("192.0.2.1", 60)) as rest, upstream(address("10.1.1.9", 60)) as corp:
        settings = tmp_path / "vipmesh.toml"
        settings.write_text(
            f"""
            [vip]
            pool = "127.113.0.0/16"
            [dataplane]
            driver = "userspace"
            [dns]
            listen = ["127.0.0.1:{port}"]
            upstream = ["127.0.0.1:{rest.address[1]}"]
            [dns.forward]
            "corp.test" = ["127.0.0.1:{corp.address[1]}"]
            [store]
            url = "sqlite:///{tmp_path}/store.db"
            [admin]
            listen = "unix://{tmp_path}/admin.sock"
            """
        )

        async def ask(name: str) -> str:
            code, output = await call("dig", "@127.0.0.1", "-p", str(port), "+time=5", "+tries=1", name)
            assert code == 0, output
            return output

        async with vipmesh("run", "-c", str(settings)) as daemon:
            await daemon.line(r"dns on 127\.0\.0\.1:\d+")
            assert "192.0.2.1" in await ask("www.test")
            assert "10.1.1.9" in await ask("dc1.corp.test")
            for own in ("nope.mesh.internal", "9.9.113.127.in-addr.arpa"):
                assert re.search(r"status: NXDOMAIN.*\n;; flags: qr aa", await ask(own)), own
            assert await daemon.end() == 0
        assert rest.names() == {"www.test."}
        assert corp.names() == {"dc1.corp.test."}


async def test_clients_outside_the_acl_are_refused_and_mistakes_are_reported(tmp_path: Path) -> None:
    port = free_port()
    settings = tmp_path / "vipmesh.toml"
    text = f"""
        [vip]
        pool = "127.113.0.0/16"
        [dataplane]
        driver = "userspace"
        [store]
        url = "sqlite:///{tmp_path}/store.db"
        [admin]
        listen = "unix://{tmp_path}/admin.sock"
        [dns]
        listen = ["127.0.0.1:{port}"]
        upstream = ["127.0.0.1:{free_port()}"]
        """
    settings.write_text(text + 'allow = ["192.0.2.0/24"]\n')
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line(r"dns on 127\.0\.0\.1:\d+")
        _, output = await call("dig", "@127.0.0.1", "-p", str(port), "+time=5", "+tries=1", "mesh.internal")
        assert "status: REFUSED" in output
        assert await daemon.end() == 0
    settings.write_text(text + f'[dns.forward]\n"corp.test" = ["127.0.0.1:{port}"]\n')
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line(rf'\[dns\.forward\] "corp\.test": 127\.0\.0\.1:{port} is this name server itself')
        assert await daemon.end() != 0


def odd_upstream(query: DNSRecord) -> bytes | None:
    """Answers by name as upstreams of the field do; it drops every question with EDNS."""
    if query.ar:
        return None
    name = str(query.q.qname).lower()
    if name == "large.test.":
        return many(1500)(query)
    if name == "rebound.test.":
        return address("127.0.0.1", 60)(query)
    if name == "private.test.":
        return address("192.168.1.1", 60)(query)
    if name == "www.example.test.":
        said = query.reply()
        said.header.rcode = RCODE.NXDOMAIN
        said.add_answer(RR(query.q.qname, QTYPE.CNAME, rdata=CNAME("web.shop.test"), ttl=60))
        return bytes(said.pack())
    return good(query)


async def test_dig_gets_what_an_odd_upstream_means_and_nothing_that_it_must_not_say(tmp_path: Path) -> None:
    port, admin = free_port(), f"unix://{tmp_path}/admin.sock"
    async with upstream(odd_upstream, tcp=False) as server:
        (tmp_path / "compose.yaml").write_text(
            "services: {web: {labels: {mesh.routing.port_80: web.shop.test}, x-endpoints: [127.0.0.21]}}"
        )
        settings = tmp_path / "vipmesh.toml"
        settings.write_text(
            f"""
            [node]
            name = "w1"
            [vip]
            pool = "127.113.0.0/16"
            [dataplane]
            driver = "userspace"
            low_port_offset = 20000
            [dns]
            listen = ["127.0.0.1:{port}"]
            upstream = ["127.0.0.1:{server.address[1]}"]
            private_answers = "refuse"
            [store]
            url = "sqlite:///{tmp_path}/store.db"
            [admin]
            listen = "{admin}"
            [source.compose]
            files = ["{tmp_path}/compose.yaml"]
            """
        )

        async def dig(*words: str) -> str:
            code, output = await call("dig", "@127.0.0.1", "-p", str(port), "+time=5", "+tries=2", *words)
            assert code == 0, output
            return output

        async with vipmesh("run", "-c", str(settings)) as daemon:
            await daemon.line(r"dns on 127\.0\.0\.1:\d+")
            shown = await eventually(lambda: status(admin), lambda s: any(each["vip"] for each in s["services"]))
            vip = shown["services"][0]["vip"]
            alias = await dig("www.example.test")
            assert "status: NOERROR" in alias
            assert re.search(rf"CNAME\s+web\.shop\.test\.\n.*\sA\s+{vip}\n", alias), alias
            assert (await dig("large.test", "+tcp")).count("192.0.2.") == 1500
            for name in ("rebound.test", "private.test"):
                refused = await dig(name)
                assert "status: REFUSED" in refused
                assert "EDE: 15 (Blocked)" in refused
            assert "192.0.2.1" in await dig("www.test")
            assert "worker=w1" in await dig("127-0-0-21.web.shop.test", "TXT", "+short")
            assert await daemon.end() == 0
