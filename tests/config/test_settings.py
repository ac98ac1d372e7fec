"""Settings: defaults, file, environment, and the messages for mistakes."""

import re
import tomllib
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.config.settings import (
    SETTINGS,
    Driver,
    EndpointAddress,
    FirewallMode,
    LogLifecycle,
    PrivateAnswers,
    Settings,
    parse_settings,
)
from mesh.model.errors import SettingsError
from mesh.util.logging.log_format import LogFormat
from tests.docs import settings as reference


def read(text: str = "", **environment: str) -> Settings:
    return parse_settings(text, environment, hostname="w1", file="vipmesh.toml")


def test_the_defaults() -> None:
    settings = read()
    assert settings == Settings(
        node_name="w1",
        node_address=None,
        ship_elasticsearch=(),
        ship_loki=(),
        ship_loki_tenant=None,
        ship_otlp=(),
        ship_directory=None,
        ship_index="vipmesh",
        ship_lifecycle=LogLifecycle.OFF,
        ship_user=None,
        ship_password_file=None,
        ship_api_key_file=None,
        ship_token_file=None,
        ship_header_file=None,
        ship_ca=None,
        ship_certificate=None,
        ship_key=None,
        ship_state=Path("/var/lib/vipmesh-ship"),
        ship_socket=Path("/run/vipmesh-ship/ship.sock"),
        ship_socket_group=None,
        ship_metrics=None,
        vip_pool=ip_network("10.112.0.0/16"),
        publish_ports=range(30000, 32768),
        dataplane_driver=Driver.AUTO,
        dataplane_low_port_offset=0,
        dataplane_drain_timeout=30,
        dataplane_hold=10,
        dataplane_local_networks=(),
        dataplane_proxy_connections=16_384,
        dataplane_proxy_sessions=8192,
        dataplane_tcp_idle=7200,
        dataplane_udp_idle=60,
        host_firewall=FirewallMode.MANAGE,
        dns_listen=(("127.0.0.1", 53),),
        dns_domain="mesh.internal",
        dns_ttl=5,
        dns_resolver="auto",
        dns_upstream=(),
        dns_forward={},
        dns_allow=(),
        dns_outstanding=1024,
        dns_tcp_connections=256,
        dns_cache_bytes=16 << 20,
        names_allow=("local", "internal", "test", "lan", "home.arpa"),
        dns_private_answers=PrivateAnswers.ALLOW,
        dns_forward_rate=2000,
        dns_refusal_rate=100,
        dns_own_rate=0,
        probes_floor=50,
        probes_concurrent=1024,
        probes_body_bytes=65_536,
        probes_commands=4,
        probes_commands_per_second=20,
        source_compose_files=(),
        source_compose_file_bytes=4 << 20,
        source_compose_values=20_000,
        source_compose_endpoints=2000,
        source_compose_problems=1000,
        source_docker_socket=None,
        source_docker_endpoint_address=EndpointAddress.AUTO,
        source_docker_image_labels=False,
        source_docker_labels=256,
        source_docker_label_length=4096,
        source_docker_require=(),
        store_url="sqlite:////var/lib/vipmesh/store.db",
        store_user=None,
        store_password=None,
        store_ca=None,
        store_cert=None,
        store_key=None,
        store_lease_ttl=5,
        store_saved_view=Path("/var/lib/vipmesh/view.json"),
        host_arrival_interval=60,
        peers_listen="auto",
        cluster_endpoint_networks=(),
        rollouts_check_networks=(),
        claims_grace=600,
        claims_keep=30 * 86_400,
        claims_container_names=32,
        claims_container_ports=16,
        claims_owner_names=256,
        claims_owner_ports=64,
        claims_new_at_once=1000,
        claims_new_per_minute=60,
        admin_listen="unix:///run/vipmesh/admin.sock",
        admin_connections=128,
        admin_tcp=None,
        admin_token_file=None,
        admin_read_token_file=None,
        admin_cert=None,
        admin_key=None,
        admin_client_ca=None,
        admin_advertise=None,
        admin_hosts=(),
        admin_audit_file=None,
        log_format=LogFormat.TEXT,
        metrics_services=1000,
        metrics_endpoints=200,
        events_keep=10_000,
        events_days=7,
        events_file=None,
    )


def test_file_and_environment_give_the_same_settings() -> None:
    file = read(
        """
        [node]
        name = "w9"
        address = "192.0.2.9"
        [vip]
        pool = "fd00:112::/64"
        [dns]
        listen = ["127.0.0.1:5353", "[::1]"]
        ttl = 30
        upstream = "192.0.2.53, 192.0.2.54:5300"
        allow = ["127.0.0.0/8", "fd00::/8"]
        outstanding = 99
        [dns.forward]
        "corp.example" = ["10.1.1.1", "[fd00::1]:5353"]
        Lab.example = "10.2.2.2"
        [source.compose]
        files = ["a.yaml", "b.yaml"]
        """
    )
    assert file == read(
        VIPMESH_NODE_NAME="w9",
        VIPMESH_NODE_ADDRESS="192.0.2.9",
        VIPMESH_VIP_POOL="fd00:112::/64",
        VIPMESH_DNS_LISTEN="127.0.0.1:5353,[::1]",
        VIPMESH_DNS_TTL="30",
        VIPMESH_DNS_UPSTREAM="192.0.2.53,192.0.2.54:5300",
        VIPMESH_DNS_ALLOW="127.0.0.0/8,fd00::/8",
        VIPMESH_DNS_OUTSTANDING="99",
        VIPMESH_DNS_FORWARD="corp.example=10.1.1.1, [fd00::1]:5353, lab.example=10.2.2.2",
        VIPMESH_SOURCE_COMPOSE_FILES="a.yaml,b.yaml",
        HOME="/root",
    )
    assert file.dns_listen == (("127.0.0.1", 5353), ("::1", 53))
    assert file.dns_forward == {
        "corp.example": (("10.1.1.1", 53), ("fd00::1", 5353)),
        "lab.example": (("10.2.2.2", 53),),
    }


def test_the_environment_wins_over_the_file() -> None:
    assert read("[dns]\nttl = 30", VIPMESH_DNS_TTL="7").dns_ttl == 7


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[dns]\nlissten = 1", r"vipmesh.toml: \[dns\] lissten: no such setting; did you mean \[dns\] listen\?"),
        ("[vips]\npool = 'x'", r"\[vips\] pool: no such setting; did you mean \[vip\] pool\?"),
        ("ttl = 5", r"vipmesh.toml: ttl: no such setting; did you mean"),
        ("[foo]", r"vipmesh.toml: \[foo\]: no such table; did you mean \["),
        ("[dsn]", r"\[dsn\]: no such table; did you mean \[dns\]\?"),
        ("[dns]\n[source.dokcer]", r"\[source.dokcer\]: no such table; did you mean \[source.docker\]\?"),
        ("[dns.forwrd]", r"\[dns.forwrd\]: no such table; did you mean \[dns.forward\]\?"),
        ("[foo.bar]", r"\[foo.bar\]: no such table"),
        ("[foo]\n[foo.bar]\n[vip]", r"\[foo.bar\]: no such table"),
        ("[[foo]]", r"foo: no such setting; did you mean"),
        ("vip = {}\nstroe = {}", r"\[stroe\]: no such table; did you mean \[store\]\?"),
        ("[vip]\npool = '10.112.0.1/16'", r"\[vip\] pool: .*has host bits set; write a network such as"),
        ("[vip]\npool = '10.112.0.0/31'", r"room for no more than 0 VIPs"),
        ("[dns]\nttl = 0", r"\[dns\] ttl: 0 is not a number from 1 to 3600; write a number of seconds"),
        ("[dns]\nttl = true", r"\[dns\] ttl: True is not a number"),
        ("[source.docker]\nimage_labels = 1", r"image_labels: 1 is neither true nor false; write true or false"),
        ("[source.docker]\nrequire = ['=x']", r"require: '=x' is not a label; write KEY or KEY=VALUE"),
        ("[source.docker]\nrequire = ['a b']", r"'a b' is not a label"),
        ("[dns]\nlisten = ['localhost']", r"'localhost' is not ADDRESS:PORT"),
        ("[dns]\nlisten = ['127.0.0.1:99999']", r"port above 65535"),
        ("[publish]\nports = '32767-30000'", r"is not an ascending range"),
        ("[dataplane]\ndriver = 'iptables'", r"'iptables' is not a data plane driver; write \"auto\""),
        ("[store]\nurl = 'mysql://x'", r"\[store\] url: 'mysql://x' is not the URL of a store; write \"sqlite:"),
        ("[store]\nurl = 'etcd://a:1,b:x/p'", r"'b:x' is not HOST:PORT; write .*\"etcd://host1:2379,"),
        (
            "[store]\nurl = 'etcd://me:secret@a:1/p'",
            r"url: the URL has a user, but is shown in logs; set \[store\] user",
        ),
        ("[store]\nlease_ttl = 1", r"\[store\] lease_ttl: 1 is not a number from 2 to 600"),
        ("[admin]\nlisten = 'unix://relative'", r"not an absolute path"),
        ("[admin]\ntcp = 'unix:///run/a.sock'", r"not ADDRESS:PORT; write an address such as"),
        (
            "[admin]\ntcp = '192.0.2.1:9780'",
            r"\[admin\] tcp: whoever reaches 192.0.2.1:9780 could .*set \[admin\] token_file",
        ),
        (
            "[admin]\ntoken_file = '/t'\nread_token_file = '/t'",
            r"read_token_file: it is token_file, .*name another file",
        ),
        ("[admin]\nhosts = ['no name']", r"\[admin\] hosts: 'no name' is not a domain name; write names such as"),
        ("[admin]\nlisten = '127.0.0.1:9780'", r"\[admin\] listen: whoever reaches 127.0.0.1:9780 could"),
        ("[admin]\ntcp = '192.0.2.1:9780'\nclient_ca = 'ca.pem'", r"client_ca: .*; set \[admin\] cert"),
        ("[node]\naddress = 'here'", r"\[node\] address: 'here' does not appear to be an IPv4 or IPv6 address"),
        ("[node]\nname = 'a b'", r"'a b' is not a host name"),
        ("[dns]\ndomain = 'a..b'", r"'a..b' is not a domain name"),
        (
            "[dns.forward]\n'corp.example' = ['10.1.1']",
            r"""vipmesh.toml: \[dns.forward\] "corp.example": .*'10.1.1'.*; write "corp.example" = \["10.1.1.1"\]""",
        ),
        ("[dns.forward]\n'corp.example' = ['x']", r'"corp.example": \'x\' is not ADDRESS:PORT'),
        ("[dns.forward]\n'corp.example' = []", r'"corp.example" has no server; write'),
        ("[dns.forward]\n'corp..example' = ['10.1.1.1']", r"'corp..example' is not a domain name"),
        ("[dns.forward]\n'A.x' = ['10.1.1.1']\n'a.x' = ['10.1.1.2']", r'"a.x" is listed twice'),
        ("[dns]\nforward = ['10.1.1.1']", r"\[dns\] forward: '10.1.1.1' has no domain; write \"corp.example\" ="),
        (
            "[dns.forward]\n'web.mesh.internal' = ['10.1.1.1']",
            r'\[dns.forward\] "web.mesh.internal": names in the cluster domain mesh.internal are answered here',
        ),
        (
            "[dns.forward]\n'corp.example' = ['127.0.0.1']",
            r'\[dns.forward\] "corp.example": 127.0.0.1:53 is this name server itself.*; write',
        ),
        ("[dns]\nupstream = ['127.0.0.1']", r"\[dns\] upstream: 127.0.0.1:53 is this name server itself"),
        ("[dns]\nallow = ['10.0.0.1/8']", r"\[dns\] allow: .*has host bits set; write networks such as"),
        ("[dns]\noutstanding = 1", r"1 is not a number from 16 to 65536"),
        ("[dns\nttl = 1", r"vipmesh.toml: not TOML: .*line 1"),
    ],
)
def test_a_mistake_is_reported_with_its_location_and_remedy(text: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert len(caught.value.problems) == 1
    assert re.search(complaint, caught.value.problems[0].text)


def test_all_mistakes_are_reported_at_once_and_variables_by_name() -> None:
    with pytest.raises(SettingsError) as caught:
        read("[dns]\nttl = 0\nx = 1", VIPMESH_DNS_TLL="5", VIPMESH_VIP_POOL="ten")
    assert [problem.text.split(";")[0] for problem in caught.value.problems] == [
        "vipmesh.toml: [dns] x: no such setting",
        "environment variable VIPMESH_DNS_TLL: no such setting",
        "environment variable VIPMESH_VIP_POOL: 'ten' does not appear to be an IPv4 or IPv6 network",
        "vipmesh.toml: [dns] ttl: 0 is not a number from 1 to 3600",
    ]
    assert caught.value.problems[2].text.endswith("; write a network such as 10.112.0.0/16"), "no quotes in a variable"


def test_every_example_in_a_remedy_is_itself_valid() -> None:
    for key, setting in SETTINGS.items():
        if " = " in setting.example:
            setting.parse(tomllib.loads(setting.example))
            continue
        quoted = re.findall(r'\["[^\]]+"\]|"[^"]+"|\b\d+\b', setting.example)
        for example in quoted:
            value = [example.strip('[]"')] if example.startswith("[") else example.strip('"')
            setting.parse(value), key  # raises if the remedy would be refused


def test_each_setting_is_a_field() -> None:
    assert [key.replace(".", "_") for key in SETTINGS] == [field.name for field in fields(Settings)]


def test_the_docs_list_every_setting_with_its_default_and_variable() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run python -m tests.docs.settings"


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 100_000, "a = " + "{a = " * 5000, "a" + ".a" * 2000 + " = 1", f"[dns]\nttl = {'9' * 5000}", "\0"],
    ids=["lists", "tables", "dots", "digits", "a zero byte"],
)
def test_a_file_that_the_parser_gives_up_on_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="not TOML"):
        read(text)


def test_variables_of_the_command_line_do_not_keep_the_daemon_from_starting() -> None:
    assert read(VIPMESH_ADMIN="https://worker-1:9780", VIPMESH_TOKEN_FILE="/t", VIPMESH_CONTEXT="a") == read()


def test_label_rules_of_the_engine_come_from_the_file_or_the_environment() -> None:
    settings = read("[source.docker]\nimage_labels = true\nrequire = ['env=production', 'com.example/mesh']")
    assert settings.source_docker_image_labels is True
    assert settings.source_docker_require == ("env=production", "com.example/mesh")
    settings = read(VIPMESH_SOURCE_DOCKER_IMAGE_LABELS="True", VIPMESH_SOURCE_DOCKER_REQUIRE="env=production, mesh")
    assert settings.source_docker_image_labels is True
    assert settings.source_docker_require == ("env=production", "mesh")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("600", 600), ('"600"', 600), ('"90s"', 90), ('"10m"', 600), ('" 12h "', 43_200), ('"1d"', 86_400), ("0", 0)],
)
def test_a_time_is_a_number_of_seconds_or_has_a_unit(written: str, seconds: int) -> None:
    assert read(f"[claims]\ngrace = {written}").claims_grace == seconds
    assert read("", VIPMESH_CLAIMS_GRACE=written.strip('"')).claims_grace == seconds


@pytest.mark.parametrize(
    "written", ['"10 minutes"', '"-1"', '"1.5h"', '"2d"', '"m"', '""', "true", "1.5", '"9999999999s"']
)
def test_a_time_that_is_none_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(SettingsError, match=r"\[claims\] grace: .*; write a time such as"):
        read(f"[claims]\ngrace = {written}")
