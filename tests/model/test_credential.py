"""Whom a certificate of the cluster names."""

import pytest

from mesh.model.credential import CertificateHolder, parse_holder

W1, ALICE = CertificateHolder("w1", is_worker=True), CertificateHolder("alice", is_worker=False)
CASES: list[tuple[list[str], CertificateHolder | None]] = [
    ([], None),
    ([W1.uri], W1),
    ([ALICE.uri], ALICE),
    ([ALICE.uri, W1.uri], W1),
    (["https://example.com/", "vipmesh:operator/a.b-c_d"], CertificateHolder("a.b-c_d", is_worker=False)),
    (["vipmesh:operator/"], None),
    (["vipmesh:operator/a/b"], None),
    (["vipmesh:operator/a\n"], None),
    (["xvipmesh:operator/a"], None),
    (["vipmesh:root/a"], None),
    (["vipmesh:operator/" + "a" * 300], None),
    (["vipmesh:operator/\u0430lice"], None),
]


@pytest.mark.parametrize(("uris", "holder"), CASES)
def test_only_whole_uris_of_ours_name_a_holder_and_a_worker_is_never_more(
    uris: list[str], holder: CertificateHolder | None
) -> None:
    assert parse_holder(uris) == holder
    assert parse_holder(reversed(uris)) == holder
