"""Test requests over real sockets in a network namespace: what came back, and how long it took."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from mesh.host.requests import has_address, local_address_towards, send_requests
from mesh.model.request import RequestOutcome, RequestResult, ServiceRequest
from mesh.model.service import Transport
from tests.netns import private_network, run_command, run_ip

HERE, NAMESERVER = "192.0.2.1", "192.0.2.53"
FILTER = """
table inet fw {
    chain output {
        type filter hook output priority filter; policy accept
        tcp dport 81 drop
        tcp dport 82 reject with icmpx admin-prohibited
        tcp dport 83 reject with icmpx port-unreachable
        tcp dport 84 reject with tcp reset
        udp dport 81 drop
    }
}
"""


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    """A namespace with two addresses, and a packet filter."""
    with private_network():
        run_ip(f"address add {HERE}/32 dev lo", f"address add {NAMESERVER}/32 dev lo")
        run_command("nft", "-f", "-", given=FILTER)
        yield


def tcp(port: int, **more: float) -> ServiceRequest:
    return ServiceRequest(Transport.TCP, port, HERE, **more)  # type: ignore[arg-type]


def one(request: ServiceRequest, patience: float = 0.3, nameservers: tuple[str, ...] = (NAMESERVER,)) -> RequestResult:
    (result,) = send_requests([request], nameservers, patience)
    return result


@pytest.mark.parametrize(
    ("port", "outcome"),
    [
        (80, RequestOutcome.ANSWERED),
        (81, RequestOutcome.NO_ANSWER),
        (82, RequestOutcome.REJECTED),
        (83, RequestOutcome.REJECTED),
        (84, RequestOutcome.REFUSED),
        (85, RequestOutcome.REFUSED),
    ],
)
def test_a_connection_is_answered_refused_rejected_or_lost(port: int, outcome: RequestOutcome) -> None:
    with socket.create_server((HERE, 80)):
        result = one(tcp(port))
    assert result.outcome is outcome, result
    assert (result.address, result.source) == (HERE, HERE)
    assert (result.seconds >= 0.3) == (outcome is RequestOutcome.NO_ANSWER)


def test_requests_are_sent_at_once_and_results_keep_their_order() -> None:
    ports = [81, 80] * 100
    with socket.create_server((HERE, 80), backlog=200):
        began = time.monotonic()
        results = send_requests([tcp(port) for port in ports], [], 0.5)
        elapsed = time.monotonic() - began
    assert [result.outcome for result in results] == [RequestOutcome.NO_ANSWER, RequestOutcome.ANSWERED] * 100
    assert elapsed < 0.5 * 100, "two groups, not two hundred waits"


def test_ports_are_known_before_anything_is_sent() -> None:
    known: list[frozenset[int]] = []
    with socket.create_server((HERE, 80)) as server:
        server.setblocking(False)

        def on_ports(ports: frozenset[int]) -> None:
            with pytest.raises(BlockingIOError):
                server.accept()
            known.append(ports)

        results = send_requests([tcp(80), tcp(81)], [], 0.3, on_ports)
    assert known == [frozenset(result.source_port for result in results)]


def test_a_request_may_have_a_port_of_its_own() -> None:
    with socket.create_server((HERE, 80)):
        assert one(tcp(80, source_port=40123)).source_port == 40123


def test_a_connection_that_must_stay_open_is_watched() -> None:
    def close_at_once(server: socket.socket) -> None:
        connection, _ = server.accept()
        connection.close()

    with socket.create_server((HERE, 80)) as server:
        closing_thread = threading.Thread(target=close_at_once, args=(server,))
        closing_thread.start()
        assert one(tcp(80, linger=5.0), 5.0).outcome is RequestOutcome.CLOSED
        closing_thread.join()
        result = one(tcp(80, linger=0.2))
        assert result.outcome is RequestOutcome.ANSWERED
        assert result.seconds < 0.2, "the time is that of the connection"


def udp(port: int, payload: bytes = b"ping") -> ServiceRequest:
    return ServiceRequest(Transport.UDP, port, HERE, payload=payload)


def test_a_datagram_is_answered_by_a_reply_or_refused_by_icmp() -> None:
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as server:
        server.bind((HERE, 5300))

        def echo() -> None:
            payload, client = server.recvfrom(100)
            server.sendto(payload, client)

        thread = threading.Thread(target=echo)
        thread.start()
        assert one(udp(5300), 5.0).outcome is RequestOutcome.ANSWERED
        thread.join()
        assert one(udp(5300)).outcome is RequestOutcome.NO_ANSWER
    assert one(udp(5300)).outcome is RequestOutcome.REFUSED
    assert one(udp(81)).outcome is RequestOutcome.NOT_SENT, "this host's own filter forbids it"


def test_a_datagram_without_an_answer_is_sent_a_second_time() -> None:
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as server:
        server.bind((HERE, 5300))
        assert one(udp(5300), 1.2).outcome is RequestOutcome.NO_ANSWER
        server.setblocking(False)
        assert [server.recv(10), server.recv(10)] == [b"ping", b"ping"]


def by_name(name: str, nameserver: str | None = None) -> ServiceRequest:
    return ServiceRequest(Transport.TCP, 80, name=name, nameserver=nameserver)


@pytest.fixture
def _names() -> Iterator[None]:
    """A name server that knows `web.test`, and knows nothing else."""
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as server:
        server.bind((NAMESERVER, 53))

        def serve() -> None:
            while True:
                packet, client = server.recvfrom(512)
                if not packet:
                    return
                query = DNSRecord.parse(packet)
                reply = query.reply()
                if str(query.q.qname) == "web.test.":
                    reply.add_answer(RR("web.test", QTYPE.A, rdata=A(HERE)))
                else:
                    reply.header.rcode = 3
                server.sendto(reply.pack(), client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with closing(socket.socket(type=socket.SOCK_DGRAM)) as last:
                last.sendto(b"", (NAMESERVER, 53))
            thread.join()


@pytest.mark.usefixtures("_names")
def test_a_name_is_looked_up_first() -> None:
    with socket.create_server((HERE, 80)):
        found = one(by_name("web.test"), 5.0)
        assert (found.outcome, found.address) == (RequestOutcome.ANSWERED, HERE)
        missing = one(by_name("other.test"), 5.0)
        assert (missing.outcome, missing.detail) == (RequestOutcome.NO_NAME, f"name server {NAMESERVER}: NXDOMAIN")
        assert one(by_name("web.test", NAMESERVER), 5.0, ()).outcome is RequestOutcome.ANSWERED


@pytest.mark.usefixtures("_names")
def test_the_second_name_server_is_asked_if_the_first_one_cannot_be() -> None:
    with socket.create_server((HERE, 80)):
        assert one(by_name("web.test"), 5.0, ("198.51.100.1", NAMESERVER)).outcome is RequestOutcome.ANSWERED


@pytest.mark.parametrize(
    ("name", "nameservers", "detail"),
    [
        ("web.test", (), "no name server is configured there"),
        ("web.test", (NAMESERVER,), f"name server {NAMESERVER}: Connection refused"),
        ("web.test", ("198.51.100.1",), "name server 198.51.100.1: Network is unreachable"),
        ("a..b", (NAMESERVER,), "'a..b' is not a DNS name"),
    ],
)
def test_why_a_name_does_not_resolve(name: str, nameservers: tuple[str, ...], detail: str) -> None:
    result = one(by_name(name), 0.3, nameservers)
    assert (result.outcome, result.detail.removeprefix(f"name server {name}: ")) == (RequestOutcome.NO_NAME, detail)


def test_without_a_route_nothing_is_sent() -> None:
    assert one(ServiceRequest(Transport.TCP, 80, "198.51.100.1")).outcome is RequestOutcome.NOT_SENT
    assert (local_address_towards("198.51.100.1"), local_address_towards(HERE)) == (None, HERE)
    assert (has_address(HERE), has_address("198.51.100.1")) == (True, False)


def test_ipv6_is_sent_too() -> None:
    with socket.create_server(("::1", 80), family=socket.AF_INET6):
        assert one(ServiceRequest(Transport.TCP, 80, "::1")).outcome is RequestOutcome.ANSWERED
        assert one(ServiceRequest(Transport.TCP, 82, "::1")).outcome is RequestOutcome.REJECTED
        assert one(ServiceRequest(Transport.UDP, 82, "::1")).outcome is RequestOutcome.REFUSED
