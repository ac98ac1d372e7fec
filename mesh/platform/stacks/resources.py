"""Reads limits and reservations of a service in every form that compose has had. Pure."""

from collections.abc import Callable
from functools import partial

from mesh.platform.fleet.protocol import FleetResources
from mesh.platform.stacks.values import PlainValue, StackKeys, parse_cpus, parse_size, parse_text, parse_whole

_DEPLOY_LIMITS, _DEPLOY_RESERVATIONS = "deploy.resources.limits", "deploy.resources.reservations"


def read_resources(keys: StackKeys) -> tuple[FleetResources, FleetResources]:
    """Return limits and reservations. Forms that say different things are refused."""
    read = partial(_one_of, keys)
    limits = FleetResources(
        read(("cpus", f"{_DEPLOY_LIMITS}.cpus"), parse_cpus),
        read(("mem_limit", f"{_DEPLOY_LIMITS}.memory"), _memory),
        read(("pids_limit", f"{_DEPLOY_LIMITS}.pids"), _pids),
    )
    reservations = FleetResources(
        read((f"{_DEPLOY_RESERVATIONS}.cpus",), parse_cpus),
        read(("mem_reservation", f"{_DEPLOY_RESERVATIONS}.memory"), _memory),
    )
    for name, limit, reserved in (
        ("cpus", limits.cpu_nanos, reservations.cpu_nanos),
        ("memory", limits.memory_bytes, reservations.memory_bytes),
    ):
        if limit and reserved > limit:
            keys.refuse(f"{_DEPLOY_RESERVATIONS}.{name}", "more is reserved than the limit allows", "raise the limit")
    return limits, reservations


def _one_of(keys: StackKeys, paths: tuple[str, ...], parse: Callable[[PlainValue], int]) -> int:
    found = [(path, keys.take(path, parse, 0)) for path in paths]
    values = {value for _, value in found if value}
    if len(values) > 1:
        keys.refuse(found[0][0], f"it differs from {found[1][0]}", "write one of them")
    return max(values, default=0)


def _memory(value: PlainValue) -> int:
    """Return bytes; -1 is no limit, as in the first compose files."""
    return 0 if parse_text(value) == "-1" else parse_size(value)


def _pids(value: PlainValue) -> int:
    return max(0, parse_whole(value, -1))
