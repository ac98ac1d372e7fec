"""Refuses values that no kernel could take when they are read: another worker, or a person, may have written them.
Pure.
"""

from ipaddress import IPv4Address, ip_address

from mesh.model.service import Address, Endpoint, EndpointKey, Service

MAX_RUN_LENGTH = 64
"""Characters of `Endpoint.run`. A time of start has 35 at most."""
_BROADCAST = IPv4Address("255.255.255.255")


def validate_service(service: Service) -> Service:
    """Return the service. Raises ValueError."""
    if service.fixed_vip is not None:
        validate_address(service.fixed_vip)
    routed = [port for route in service.routes for port in (route.listen_port, route.container_port)]
    published = [port for publish in service.publishes for port in (publish.container_port, publish.port)]
    for port in (*routed, *published):
        if port is not None:
            validate_port(port)
    return service


def validate_endpoint(endpoint: Endpoint, key: EndpointKey) -> Endpoint:
    """Return the endpoint. Raises ValueError."""
    if endpoint.key != key:
        raise ValueError(f"it is about endpoint {endpoint.id} of worker {endpoint.worker}")
    validate_address(endpoint.address)
    if endpoint.port is not None:
        validate_port(endpoint.port)
    for mapped in endpoint.host_ports:
        validate_port(mapped.port)
    if not 0 <= endpoint.weight <= 65535:  # what ipvsadm(8) takes
        raise ValueError(f"{endpoint.weight} is not a weight from 0 to 65535")
    if endpoint.run is not None and (len(endpoint.run) > MAX_RUN_LENGTH or not endpoint.run.isprintable()):
        raise ValueError(f"its run has more than {MAX_RUN_LENGTH} characters, or some that cannot be printed")
    for threshold in (endpoint.max_connections, endpoint.min_connections):
        if not 0 <= threshold < 1 << 32:
            raise ValueError(f"{threshold} is not a number of connections from 0 to 4294967295")
    return endpoint


def validate_address(text: Address) -> Address:
    """Return the address. It must be of one host; loopback is allowed, since the user-space proxy serves it. Raises
    ValueError.

    Only the canonical form is allowed: a kernel returns addresses in that form, and another would look like another
    server.
    """
    address = ip_address(text)
    if address.is_unspecified or address.is_multicast or address == _BROADCAST or "%" in text:
        raise ValueError(f"{text} is not the address of one host")
    if str(address) != text:
        raise ValueError(f"{text} is written {address}")
    return text


def validate_port(number: int) -> int:
    """Return the port. Raises ValueError."""
    if not 1 <= number <= 65535:
        raise ValueError(f"{number} is not a port from 1 to 65535")
    return number
