"""The etcd URL: members, prefix, and refused forms."""

import pytest

from mesh.config.etcd_url import EtcdUrl, parse_etcd_url, rollouts_prefix


@pytest.mark.parametrize(
    ("text", "members", "prefix"),
    [
        ("etcd://h1", ("http://h1:2379",), "/vipmesh/"),
        ("etcd://h1:1,h2:2, h3/shop", ("http://h1:1", "http://h2:2", "http://h3:2379"), "/shop/"),
        ("etcds://10.0.0.1,[fd00::0:1]:5/a/b/", ("https://10.0.0.1:2379", "https://[fd00::1]:5"), "/a/b/"),
        ("etcd://h1,h1/", ("http://h1:2379",), "/vipmesh/"),
    ],
)
def test_members_and_prefix(text: str, members: tuple[str, ...], prefix: str) -> None:
    assert parse_etcd_url(text) == EtcdUrl(members, prefix)
    assert parse_etcd_url(text).tls == text.startswith("etcds")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("etcd:h1", "not the URL of an etcd cluster"),
        ("etcd://h1?tls=1", "not the URL of an etcd cluster"),
        ("etcd:///vipmesh", "'' is not HOST:PORT"),
        ("etcd://h1:0/x", "no port from 1 to 65535"),
        ("etcd://h1:99999/x", "no port from 1 to 65535"),
        ("etcd://fd00::1/x", "is not HOST:PORT"),
        ("etcd://[fd00::zz]/x", "is not HOST:PORT"),
        ("etcd://[fd00:::1]/x", "fd00:::1"),
        ("etcd://u:p@h1/x", "is shown in logs"),
        ("etcd://h1/a b", "characters that are not letters"),
    ],
)
def test_refused_urls(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_etcd_url(text)
    assert "u:p" not in str(caught.value)


def test_evidence_of_rollouts_is_beside_the_keys_of_the_cluster() -> None:
    assert rollouts_prefix("/vipmesh/") == "/vipmesh.rollouts/"
