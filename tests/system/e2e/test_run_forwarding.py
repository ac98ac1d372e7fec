"""`vipmesh run` as the name server of a host: other names, domains with their own servers, and own names."""

import re
from pathlib import Path

from tests.meshdns.upstream import address, upstream
from tests.system.e2e.programs import call, free_port, vipmesh


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
