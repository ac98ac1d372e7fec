"""Compose files that are as large as their bounds permit, each of another shape: what a daemon has to bear."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mesh.sources.compose.limits import ComposeLimits

NAME = "mesh.routing.port_80"


def many_services(limits: ComposeLimits) -> str:
    """As many services with an endpoint and a name as there may be, and further values up to the bound."""
    count = min(limits.endpoints, limits.values // 10)
    spare = max(0, limits.values // count - 10) // 2
    others = "".join(f"      other.label{n}: value\n" for n in range(spare))
    return "services:\n" + "".join(_service(n) + others for n in range(count))


def many_endpoints(limits: ComposeLimits) -> str:
    """One service with as many endpoints as there may be."""
    count = min(limits.endpoints, limits.values - 20)
    listed = "".join(f"    - 127.0.4.1:{1000 + n}\n" for n in range(count))
    return f"services:\n  dense:\n    labels: {{{NAME}: dense.bench.test}}\n    x-endpoints:\n{listed}"


def aliased_endpoints(limits: ComposeLimits) -> str:
    """Services that have the same endpoints, by an alias."""
    services = max(1, min(30, limits.values // 100))
    count = max(1, limits.endpoints // services)
    listed = ", ".join(f"'127.0.4.1:{1000 + n}'" for n in range(min(count, limits.values // 4)))
    return f"x-all: &all [{listed}]\nservices:\n" + "".join(
        f"  dense{n}: {{x-endpoints: *all, labels: {{{NAME}: dense{n}.bench.test}}}}\n" for n in range(services)
    )


def many_labels(limits: ComposeLimits) -> str:
    """Few services with many labels, which are of somebody else."""
    return _with_labels(limits, "other.label", "value")


def unknown_labels(limits: ComposeLimits) -> str:
    """Few services with many labels, each of which is a problem."""
    return _with_labels(limits, "mesh.evil", "value")


def long_values(limits: ComposeLimits) -> str:
    """Labels whose values fill the file."""
    return _with_labels(limits, "other.label", "v" * (limits.file_bytes // limits.values))


def merged_labels(limits: ComposeLimits) -> str:
    """Labels that an anchor has, in many services."""
    labels = limits.values // 100
    shared = ", ".join(f"other.label{n}: value" for n in range(labels))
    count = min(limits.values // 20, limits.entries // (3 * labels + 10))
    services = "".join(_service(n) + "      <<: *all\n" for n in range(count))
    return f"x-all: &all {{{shared}}}\nservices:\n{services}"


def extended_services(limits: ComposeLimits) -> str:
    """Services that all extend one with labels."""
    labels = "".join(f"      other.label{n}: value\n" for n in range(max(1, limits.values // 700)))
    count = min(limits.endpoints, limits.values // 14)
    services = "".join(_service(n).replace("labels:", "extends: base\n    labels:") for n in range(count))
    return f"services:\n  base:\n    labels:\n{labels}{services}"


def deep_trees(limits: ComposeLimits) -> str:
    """Services with values that are nested as deeply as they may be."""
    count = max(1, limits.values // 100)
    return "services:\n" + "".join(f"{_service(n)}    x-deep: {'[' * 80}{']' * 80}\n" for n in range(count))


def many_problems(limits: ComposeLimits) -> str:
    """Services with an unknown key and a name that is none."""
    count = min(limits.endpoints, limits.values // 12)
    return "services:\n" + "".join(_service(n, "no name") + f"    evil{n}: 1\n" for n in range(count))


def _with_labels(limits: ComposeLimits, key: str, value: str) -> str:
    services = 10
    count = (limits.values // services - 12) // 2
    room = max(0, limits.file_bytes // (services * max(1, count)) - len(key) - 16)
    labels = "".join(f"      {key}{n}: {value[:room]}\n" for n in range(count))
    return "services:\n" + "".join(_service(n) + labels for n in range(services))


def _service(number: int, name: str = "") -> str:
    address, port = f"127.0.4.{1 + number % 250}", 1000 + number
    name = name or f"dense{number}.bench.test"
    return f"  dense{number}:\n    x-endpoints: ['{address}:{port}']\n    labels:\n      {NAME}: {name}\n"


DENSE_FILES: Mapping[str, Callable[[ComposeLimits], str]] = MappingProxyType(
    {
        "services": many_services,
        "endpoints": many_endpoints,
        "aliased endpoints": aliased_endpoints,
        "labels": many_labels,
        "unknown labels": unknown_labels,
        "long values": long_values,
        "merged labels": merged_labels,
        "extended services": extended_services,
        "deep trees": deep_trees,
        "problems": many_problems,
    }
)
"""By shape, the text of a file just inside the bounds."""
