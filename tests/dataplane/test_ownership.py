"""Which virtual servers on the worker's own addresses are ours."""

import pytest

from mesh.dataplane.ownership import PublishedPorts
from mesh.model.claims import Claims
from mesh.model.service import Transport
from mesh.model.table import VirtualKey


@pytest.mark.parametrize(
    ("address", "port", "transport", "ours"),
    [
        pytest.param("192.0.2.1", 30001, Transport.TCP, True, id="a published port that is claimed"),
        pytest.param("192.0.2.1", 30001, Transport.UDP, False, id="the same port of the other transport"),
        pytest.param("192.0.2.1", 443, Transport.TCP, False, id="somebody's own on the worker's address"),
        pytest.param("192.0.2.3", 30001, Transport.TCP, True, id="on another address"),
        pytest.param("192.0.2.9", 30001, Transport.TCP, False, id="a claimed port on an address that is not ours"),
    ],
)
def test_which_virtual_servers_are_ours(address: str, port: int, transport: Transport, ours: bool) -> None:
    claims = Claims(ports={(Transport.TCP, 30001): ("web.test", 80)})
    published = PublishedPorts(lambda: claims, lambda: ["192.0.2.1", "192.0.2.3"])
    assert published(VirtualKey(address, port, transport)) is ours
