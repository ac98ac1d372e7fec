"""Resolvers that users have, each as a program of its own: glibc, musl, dig and kdig.

The C libraries read /etc/resolv.conf and ask port 53, so they run in a network and a mount namespace of their own,
where that file is ours and 127.0.0.1:53 is free.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshdns.server import NameServer
from meshdns.service_records import DnsEndpoint, DnsPort, DnsService
from meshdns.thread import ThreadedServer
from meshdns.zone import ZoneBuilder
from tests.netns import private_network
from tests.system.e2e.programs import call

WEB = DnsService(
    ("10.112.0.7",),
    (DnsEndpoint("a", "10.2.0.1", True), DnsEndpoint("b", "10.2.0.2", False)),
    (DnsPort(80, "tcp"),),
    ("state=serving",),
    canonical=True,
)
SERVICES = {
    "web.mesh.internal": WEB,
    "restserver.local": DnsService(("10.112.0.8",)),
    "both.mesh.internal": DnsService(("10.112.0.9", "fd00::9")),
    "many.mesh.internal": DnsService(
        ("10.112.0.10",), tuple(DnsEndpoint(f"e{n}", f"10.2.{n >> 8}.{n & 255}", True) for n in range(300))
    ),
}
ZONE = ZoneBuilder(["mesh.internal", "112.10.in-addr.arpa"]).update(SERVICES)[0]
SOURCE = Path(__file__).parent / "getaddrinfo.c"


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    server = NameServer([("127.0.0.1", 0)], ZONE)
    await server.start()
    yield server
    await server.stop()


async def ask(program: str, server: NameServer, *words: str) -> str:
    host, port = server.addresses[0]
    code, output = await call(program, f"@{host}", "-p", str(port), *words)
    assert code == 0, output
    return output


@pytest.mark.parametrize("program", ["dig", "kdig"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
async def test_dig_and_kdig_read_every_record(server: NameServer, program: str, transport: str) -> None:
    for name, kind, line in (
        ("web.mesh.internal", "A", r"A\s+10\.112\.0\.7"),
        ("both.mesh.internal", "AAAA", r"AAAA\s+fd00::9"),
        ("a.web.mesh.internal", "A", r"A\s+10\.2\.0\.1"),
        ("tasks.web.mesh.internal", "A", r"A\s+10\.2\.0\.1"),
        ("_80._tcp.web.mesh.internal", "SRV", r"SRV\s+0 0 80 web\.mesh\.internal\."),
        ("web.mesh.internal", "TXT", r'TXT\s+"state=serving"'),
        ("7.0.112.10.in-addr.arpa", "PTR", r"PTR\s+web\.mesh\.internal\."),
        ("mesh.internal", "SOA", r"SOA\s+ns\.mesh\.internal\. hostmaster\.mesh\.internal\."),
        ("mesh.internal", "NS", r"NS\s+ns\.mesh\.internal\."),
    ):
        output = await ask(program, server, name, kind, transport)
        assert re.search(rf"^{re.escape(name)}\.\s+5\s+IN\s+{line}", output, re.MULTILINE), output
        assert not re.search("WARN|malformed|unexpected", output, re.IGNORECASE), output


async def test_kdig_reuses_its_connection_for_many_queries(server: NameServer) -> None:
    names = ["web.mesh.internal", "nope.mesh.internal", "restserver.local", "tasks.many.mesh.internal"] * 3
    output = await ask("kdig", server, "+tcp", "+keepopen", *names)
    assert output.count("status: NOERROR") == 9
    assert output.count("status: NXDOMAIN") == 3
    assert output.count("10.2.1.43") == 3, "the last of 300 endpoints"
    ports = set(re.findall(r"From 127\.0\.0\.1@\d+\(TCP\) in", output))
    assert len(ports) == 1


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


async def compiled(compiler: str, directory: Path, *options: str) -> Path:
    program = directory / f"getaddrinfo-{compiler}"
    if not program.exists():
        code, output = await call(compiler, *options, "-O1", "-o", str(program), str(SOURCE), seconds=60)
        assert code == 0, output
    return program


@pytest.mark.parametrize(
    ("compiler", "options"), [("gcc", ()), ("musl-gcc", ("-static",))], ids=["glibc", "musl, static"]
)
def test_getaddrinfo(compiler: str, options: tuple[str, ...], directory: Path) -> None:
    """Both addresses are asked for in parallel; search domains are walked through; large answers come over TCP."""
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch mesh.internal\noptions ndots:2 timeout:2\n")
    (directory / "nsswitch.conf").write_text("hosts: dns\n")

    async def work() -> str:
        program = await compiled(compiler, directory, *options)
        server = ThreadedServer(lambda: NameServer([("127.0.0.1", 53)], ZONE))
        await server.start()
        script = (
            f"mount --bind {directory}/resolv.conf /etc/resolv.conf && "
            f"mount --bind {directory}/nsswitch.conf /etc/nsswitch.conf && exec {program} "
            "web.mesh.internal restserver.local both.mesh.internal web WEB.mesh.internal nope.mesh.internal "
            "tasks.web tasks.many.mesh.internal"
        )
        _, output = await call("unshare", "--mount", "sh", "-c", script)
        await server.stop()
        return output

    with private_network():
        lines = dict(line.split(": ") for line in asyncio.run(work()).splitlines())
    assert lines["web.mesh.internal"] == "10.112.0.7", "no AAAA is no data: not a failure"
    assert lines["restserver.local"] == "10.112.0.8"
    assert set(lines["both.mesh.internal"].split()) == {"10.112.0.9", "fd00::9"}
    assert lines["web"] == lines["WEB.mesh.internal"] == "10.112.0.7"
    assert lines["nope.mesh.internal"] == "EAI_NONAME"
    assert lines["tasks.web"] == "10.2.0.1"
    many = lines["tasks.many.mesh.internal"].split()
    if compiler == "gcc":
        assert len(many) == 300, "glibc comes back over TCP"
    else:
        assert len(many) > 20, "musl before 1.2.4 has no TCP: it takes what fits"
