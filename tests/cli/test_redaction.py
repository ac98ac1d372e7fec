"""What leaves the host has no secrets."""

import json

import pytest

from mesh.cli.redaction import label_secrets, redact, redact_json


@pytest.mark.parametrize(
    "text",
    [
        "probe http://operator:HUSH-12345@container:8080/health failed",
        "etcd://root:HUSH-12345@10.0.0.1:2379/vipmesh is not usable",
        "GET https://container/health?key=HUSH-12345&x=1 answered 403",
        "Authorization: Bearer HUSH-12345",
        'header "Authorization: Basic HUSH-12345=="',
        json.dumps({"headers": {"X-Api-Key": "HUSH-12345"}}),
        json.dumps({"text": 'it has "password": "HUSH-12345"'}),
        "DATABASE_PASSWORD=HUSH-12345",
        "exit status 1: PGPASSWORD='HUSH-12345' psql",
        "cookie: HUSH-12345; path=/",
        "-----BEGIN PRIVATE KEY-----\nHUSH-12345\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nHUSH-12345",
        'error: service web, label mesh.probe.header.x-code: "HUSH-12345" is not a header; write it',
        'error: service web, label aliyun.probe.cmd: "psql "HUSH-12345"" has no effect; remove it',
    ],
)
def test_what_looks_like_a_secret_is_withheld(text: str) -> None:
    assert "HUSH" not in redact(text, ())
    assert "[withheld]" in redact(text, ())


def test_json_stays_json() -> None:
    document = {
        "problems": ['label mesh.probe.cmd: "psql \\"HUSH-1" is refused', "http://a:HUSH-2@b/c"],
        "known": {"a": ["HUSH-3"]},
        "password": "HUSH-4",
        "token_file": "/etc/vipmesh/token",
        "count": 3,
    }
    assert json.loads(redact_json(json.dumps(document), ["HUSH-3"])) == {
        "problems": ['label mesh.probe.cmd: "[withheld]" is refused', "http://[withheld]@b/c"],
        "known": {"a": ["[withheld]"]},
        "password": "[withheld]",
        "token_file": "/etc/vipmesh/token",
        "count": 3,
    }
    with pytest.raises(ValueError, match="Expecting"):
        redact_json("{", ())


@pytest.mark.parametrize("text", ["web.mesh.internal 10.112.0.7:80 w1/web-1", 'vipmesh_up{worker="w1"} 1', "a b c"])
def test_everything_else_stays(text: str) -> None:
    assert redact(text, ["", "abc", "hush"]) == text


def test_values_of_probe_labels_are_secrets_wherever_they_are() -> None:
    labels = {
        "mesh.probe.header.x-code": "it's HUSH-1",
        "aliyun.probe.cmd": 'check --with "HUSH-2" ' + "x" * 80,
        "mesh.probe.send": "HUSH-3\n",
        "mesh.routing.port_80": "web.test",
    }
    secrets = label_secrets([labels])
    assert "web.test" not in secrets
    for value in (*labels.values(), "HUSH-2 x", "the answer HUSH-3\\n", json.dumps(labels)):
        assert "HUSH" not in redact(value, secrets)
    assert redact("web.test", secrets) == "web.test"


def test_the_longest_secret_goes_first() -> None:
    assert redact("abcdefgh", ["abcd", "abcdefgh"]) == "[withheld]"
