"""`vipmesh doctor` asks etcd something, as the user of the daemon."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.cli.doctor.collect import doctor_input, examine_host
from mesh.cli.doctor.rules import Finding, FindingLevel, host_findings
from mesh.config.settings import parse_settings
from tests.store.etcd.server import EtcdServer, etcd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One member without users."""
    with etcd(tmp_path_factory.mktemp("etcd"), 1, ["--bcrypt-cost", "4"]) as server:
        yield server


async def about_store(address: str, more: str = "") -> list[Finding]:
    text = f'[vip]\npool = "127.112.0.0/16"\n[store]\nurl = "etcd://{address}/vipmesh"\n{more}'
    asked = doctor_input(parse_settings(text, {}, hostname="w1"))
    return [each for each in host_findings(await examine_host(asked), asked) if each.about == "store"]


async def test_a_member_that_serves_is_good_and_one_that_requires_a_user_is_not(server: EtcdServer) -> None:
    address = server.urls[0].partition("//")[2]
    (found,) = await about_store(address)
    assert (found.level, found.mend) == (FindingLevel.OK, None)
    server.ctl("user", "add", "root:secret")
    server.ctl("user", "grant-role", "root", "root")
    server.ctl("user", "add", "stranger:word")
    server.ctl("auth", "enable")
    server.tls = ["--user", "root:secret"]
    (found,) = await about_store(address)
    assert found.level is FindingLevel.ERROR
    assert found.mend == "etcd requires a user: set [store] user and password"
    (found,) = await about_store(address, 'user = "root"\npassword = "secret"')
    assert found.level is FindingLevel.OK
    (found,) = await about_store(address, 'user = "root"\npassword = "wrong"')
    assert found.mend == "set [store] user and password to those of a user of etcd"
    assert "wrong" not in found.found
    (found,) = await about_store(address, 'user = "stranger"\npassword = "word"')
    assert found.mend is not None
    assert found.mend.startswith("run etcdctl role grant-permission ")
    server.ctl("auth", "disable")


async def test_a_member_that_accepts_and_does_not_answer_is_no_good(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        (found,) = await about_store(f"127.0.0.1:{hung.getsockname()[1]}")
    assert found.level is FindingLevel.ERROR
    assert "no answer within " in found.found


async def test_a_member_that_is_cut_off_from_its_quorum_is_no_good(tmp_path: Path) -> None:
    with etcd(tmp_path / "etcd", 3) as server:
        for member in server.members[1:]:
            member.kill()
        (found,) = await about_store(server.urls[0].partition("//")[2])
    assert found.level is FindingLevel.ERROR
