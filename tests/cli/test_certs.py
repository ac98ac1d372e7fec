"""`vipmesh cluster certs`: what is made, kept and renewed, for whom, and who may read it."""

import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from mesh.cli.certificates import hosts_of, read_pem, read_revoked
from mesh.cli.certs import CertificateFileError, Wanted, make_certificates, revoke_certificates
from mesh.cli.main import main
from mesh.model.credential import CertificateHolder, parse_holder

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
W1 = CertificateHolder("w1", is_worker=True)
ALICE = CertificateHolder("alice", is_worker=False)
BOTH: list[Wanted] = [(W1, ["192.0.2.11", "fd00::11", "w1.example.com"]), (ALICE, ())]


def actions(directory: Path, wanted: list[Wanted], now: datetime = NOW, **options: bool) -> list[str]:
    return [each.action for each in make_certificates(directory, wanted, now, 90, **options)]


def certificate(file: Path) -> x509.Certificate:
    return read_pem(file.read_bytes()).certificate


def holder(file: Path) -> CertificateHolder | None:
    names = certificate(file).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return parse_holder(names.get_values_for_type(x509.UniformResourceIdentifier))


def test_each_certificate_names_its_holder_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    assert actions(tmp_path / "certs", BOTH) == ["made", "made", "made"]
    files = sorted((tmp_path / "certs").iterdir())
    assert [file.name for file in files] == ["alice.pem", "ca.key", "ca.pem", "w1.pem"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700
    assert b"PRIVATE" not in (tmp_path / "certs/ca.pem").read_bytes()
    assert hosts_of(certificate(tmp_path / "certs/w1.pem")) == {"w1", "192.0.2.11", "fd00::11", "w1.example.com"}
    assert holder(tmp_path / "certs/w1.pem") == W1
    assert holder(tmp_path / "certs/alice.pem") == ALICE
    assert hosts_of(certificate(tmp_path / "certs/alice.pem")) == frozenset(), "nobody is to take it for a server's"


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """Others may need what else it holds: it may be /etc."""
    tmp_path.chmod(0o755)
    actions(tmp_path, BOTH)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_what_has_time_left_is_kept(tmp_path: Path) -> None:
    actions(tmp_path, BOTH)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert actions(tmp_path, BOTH, NOW + timedelta(days=59)) == ["kept", "kept", "kept"]
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert actions(tmp_path, BOTH, NOW + timedelta(days=61)) == ["kept", "renewed", "renewed"]
    assert actions(tmp_path, BOTH, NOW + timedelta(days=61)) == ["kept", "kept", "kept"]
    assert actions(tmp_path, BOTH, NOW + timedelta(days=61), renew=True) == ["kept", "renewed", "renewed"]


def test_other_hosts_make_it_anew_and_none_are_forgotten_where_none_are_named(tmp_path: Path) -> None:
    actions(tmp_path, BOTH)
    hosts = hosts_of(certificate(tmp_path / "w1.pem"))
    assert actions(tmp_path, [(W1, None)]) == ["kept", "kept"]
    assert actions(tmp_path, [(W1, None)], renew=True) == ["kept", "renewed"]
    assert hosts_of(certificate(tmp_path / "w1.pem")) == hosts
    assert actions(tmp_path, [(W1, ["192.0.2.99"])]) == ["kept", "renewed"]
    assert hosts_of(certificate(tmp_path / "w1.pem")) == {"w1", "192.0.2.99"}


def test_one_that_another_authority_has_signed_is_made_anew(tmp_path: Path) -> None:
    for name in ("one", "two"):
        actions(tmp_path / name, BOTH)
    (tmp_path / "one/w1.pem").write_bytes((tmp_path / "two/w1.pem").read_bytes())
    assert actions(tmp_path / "one", BOTH) == ["kept", "renewed", "kept"]


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    actions(tmp_path, BOTH)
    late = NOW + timedelta(days=3600)
    actions(tmp_path, BOTH, late)
    ends = certificate(tmp_path / "ca.key").not_valid_after_utc
    assert late < certificate(tmp_path / "w1.pem").not_valid_after_utc <= ends
    with pytest.raises(CertificateFileError, match="the authority ends at 2036-11-27; make certificates for everybody"):
        actions(tmp_path, BOTH, NOW + timedelta(days=3640))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda at: (at / "ca.key").unlink(), r"ca\.key: it is missing"),
        (lambda at: (at / "ca.key").write_text("nothing"), r"ca\.key: it is no certificate with its private key"),
        (lambda at: (at / "w1.pem").write_text("my notes"), r"w1\.pem: it is no certificate .* move it away"),
        (lambda at: (at / "w1.pem").write_bytes(bytes(2_000_000)), r"w1\.pem: it has more than"),
        (lambda at: ((at / "w1.pem").unlink(), (at / "w1.pem").mkdir()), r"w1\.pem: it is not a regular file"),
    ],
)
def test_a_file_that_cannot_be_used_is_left_as_it_is(tmp_path: Path, break_it: object, message: str) -> None:
    actions(tmp_path, BOTH)
    assert callable(break_it)
    break_it(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(CertificateFileError, match=message):
        actions(tmp_path, BOTH, renew=True)
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_two_holders_of_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateFileError, match="w1 is named twice"):
        actions(tmp_path, [(W1, ()), (CertificateHolder("w1", is_worker=False), ())])
    assert not list(tmp_path.iterdir())


def test_the_verb_makes_what_tls_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = str(tmp_path / "certs")
    assert main(["cluster", "certs", "w1=192.0.2.11", "w2", "--directory", directory, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["holder"] for each in document["certificates"]] == [
        "authority",
        "vipmesh:worker/w1",
        "vipmesh:worker/w2",
        "vipmesh:operator/operator",
    ]
    assert main(["cluster", "certs", "w1", "w2", "--directory", directory]) == 0
    said = capsys.readouterr().out
    assert f"{directory}/w1.pem: kept, valid until" in said
    assert 'client_ca = "/etc/vipmesh/ca.pem"' in said
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.verify_mode = ssl.CERT_REQUIRED
    for context, name in ((server, "w1"), (client, "operator")):
        context.load_cert_chain(f"{directory}/{name}.pem")
        context.load_verify_locations(f"{directory}/ca.pem")
    for host, accepted in (("w1", True), ("192.0.2.11", True), ("w2", False)):
        assert shakes_hands(server, client, host) == accepted, host


def shakes_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> bool:
    """Without a network: what each writes is what the other reads."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for _ in range(10):
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
            ends.remove(end)
    return not ends


@pytest.mark.parametrize("words", [["ca"], ["a b"], ["w1=bad host"], ["w1=fe80::zz"], ["w1", "--operator", "../x"]])
def test_names_that_no_file_or_host_may_have_are_wrong_usage(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["cluster", "certs", *words, "--directory", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_what_is_revoked_stays_revoked_and_gets_a_new_certificate(tmp_path: Path) -> None:
    actions(tmp_path, BOTH)
    serials = {name: certificate(tmp_path / f"{name}.pem").serial_number for name in ("w1", "alice")}
    assert [each.action for each in revoke_certificates(tmp_path, ["w1", "w1"], NOW)] == ["kept", "revoked"]
    assert not (tmp_path / "w1.pem").exists()
    later = NOW + timedelta(days=1)
    assert [each.action for each in revoke_certificates(tmp_path, ["alice"], later)] == ["kept", "revoked"]
    assert actions(tmp_path, BOTH, later) == ["kept", "made", "made"]
    listed = read_revoked((tmp_path / "ca.pem").read_bytes())
    assert listed == [(serials["w1"], NOW), (serials["alice"], later)]
    assert certificate(tmp_path / "w1.pem").serial_number not in serials.values()
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_nothing_is_revoked_if_one_of_them_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CertificateFileError, match=r"ca\.key: it is missing"):
        revoke_certificates(tmp_path, ["w1"], NOW)
    actions(tmp_path, BOTH)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CertificateFileError, match=r"w9\.pem: there is no such certificate"):
        revoke_certificates(tmp_path, ["w1", "w9"], NOW)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    (tmp_path / "ca.pem").write_text("another")
    with pytest.raises(CertificateFileError, match=r"ca\.pem: it cannot be used"):
        revoke_certificates(tmp_path, ["w1"], NOW)


def test_a_revoked_operator_is_named_by_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = str(tmp_path / "certs")
    assert main(["cluster", "certs", "w1", "--directory", directory]) == 0
    assert main(["cluster", "revoke", "operator", "--directory", directory]) == 0
    assert f"Put {directory}/ca.pem in the place of the old one" in capsys.readouterr().out
    assert main(["cluster", "revoke", "operator", "--directory", directory, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["codes"] == ["VM656"]
