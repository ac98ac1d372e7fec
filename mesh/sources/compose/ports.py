"""Finds entries of `x-endpoints` that contradict the labels: their port stands for several, their number is another."""

from collections.abc import Iterator, Mapping

from mesh.config.labels.reader import PUBLISH, ROUTE, LabelReader, label_key
from mesh.config.labels.values import escape_unprintable, quote_value, split_url
from mesh.model.codes import Code
from mesh.model.probe import DEFAULT_PROBE_PORTS
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.model import ComposeService


def endpoint_port_problems(service: ComposeService) -> Iterator[Problem]:
    """Yield a warning if the port of an entry of `x-endpoints` stands for several, or for one that is not declared."""
    first = next((endpoint for endpoint in service.endpoints or () if endpoint.port is not None), None)
    if first is None:
        return
    subject = f"service {escape_unprintable(service.name)}"
    labels = LabelReader(service.labels, subject)
    ports = sorted({label.number for kind in (ROUTE, PUBLISH) for label in labels.ports(kind)})
    if len(ports) > 1:
        listed = ", ".join(map(str, ports[:-1])) + f" and {ports[-1]}"
        yield Problem(
            Code.COMPOSE_ENDPOINT_PORT,
            Severity.WARNING,
            f"{subject}, x-endpoints",
            f"{first} is reached at port {first.port} for container ports {listed} alike",
            f"write {_without_port(first.address)} without a port, or one service for each container port",
            where=first.where,
        )
    url = _probe_url(service.labels)
    if url is not None and ports and url[1] not in ports:
        key, port = url
        yield Problem(
            Code.COMPOSE_ENDPOINT_PORT,
            Severity.WARNING,
            f"{subject}, label {escape_unprintable(key)}",
            f"port {port} is none of the container ports that are routed or published, so port {first.port} of "
            f"{quote_value(str(first))} is probed in its place",
            f"write the container port {ports[0]}, or {_without_port(first.address)} in x-endpoints",
            label=key,
            where=service.label_where.get(key, service.where),
        )


def scale_problems(service: ComposeService, scale: int | None) -> Iterator[Problem]:
    """Yield a warning if `x-endpoints` lists another number of instances than the label `scale` says."""
    if scale is None or not service.endpoints or len(service.endpoints) == scale:
        return
    key = label_key(service.labels, "scale") or ""
    yield Problem(
        Code.LABEL_WITHOUT_EFFECT,
        Severity.WARNING,
        f"service {escape_unprintable(service.name)}, label {escape_unprintable(key)}",
        f"it is {scale}, but x-endpoints lists {len(service.endpoints)} instances, which count",
        "list as many, or write their number",
        label=key,
        where=service.label_where.get(key, service.where),
    )


def _probe_url(labels: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the key of the label `probe.url` and its port, if that is written and the default of its scheme."""
    key = label_key(labels, "probe.url")
    if key is None:
        return None
    url = split_url(labels[key].strip())
    for kind, port in DEFAULT_PROBE_PORTS.items():
        if (kind.value, str(port)) == (url.scheme, url.port):
            return key, port
    return None


def _without_port(address: str) -> str:
    return f"[{address}]" if ":" in address else address
