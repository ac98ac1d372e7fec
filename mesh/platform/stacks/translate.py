"""Translates a stack into what the fleet must have: one engine service for each release. Pure.

It uses no updater, no address and no network of the engine: the routing mesh finds the containers by their labels, each
on the default bridge of its worker, with its ports on free ports of the worker.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace

from mesh.config.labels.reader import PUBLISH, ROUTE, SCALED_LABEL, is_scaled, is_stack_label, label_key, label_name
from mesh.config.labels.values import escape_unprintable
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.platform.fleet.protocol import FleetContainer, FleetSpec
from mesh.platform.stacks.affinity import placement_of
from mesh.platform.stacks.digest import ADDED_RELEASE_LABEL, spec_digest
from mesh.platform.stacks.model import (
    DIGEST_LABEL,
    MOVES_LABEL,
    RELEASE_LABEL,
    SERVICE_LABEL,
    STACK_LABEL,
    Desired,
    DesiredService,
    Stack,
    StackService,
    StackSite,
)
from mesh.sources.docker.inspection import STOP_GRACE_LABEL

_DRAIN_SIGNAL = "SIGCONT"
"""Ignored by processes, and seen by the daemon, which drains and then sends the signal that ends them."""
_DEFAULT_GRACE = 10_000_000_000
"""In nanoseconds: what the engine gives a container of which nothing says otherwise."""
_MOST_NAME = 63
_SHORT_DIGEST = 8


def images_of(stack: Stack) -> Mapping[str, bool]:
    """Return the references of all images, and whether the registry must be asked though the image is present."""
    images: dict[str, bool] = {}
    for service in stack.services:
        image = service.container.image
        images[image] = images.get(image, False) or service.always_pull
    return images


def translate(stack: Stack, images: Mapping[str, str], site: StackSite, instances: Mapping[str, int]) -> Desired:
    """Return what the fleet must have.

    `images` maps each reference as it is written to the one with its digest; a missing one is taken as written.
    `instances` has the numbers that are in force in the place of those of the file, by service.
    """
    services = tuple(
        _desired(stack, service, images.get(service.container.image, service.container.image), site, instances)
        for service in stack.services
    )
    problems = tuple(problem for service in stack.services for problem in _resolver_problems(service, site))
    return Desired(stack.project, services, stack.problems + problems, stack.refused, stack.broken)


def _desired(
    stack: Stack, service: StackService, image: str, site: StackSite, instances: Mapping[str, int]
) -> DesiredService:
    owner = f"{stack.project}/{service.name}"
    kept = {key: value for key, value in service.container.labels.items() if not is_stack_label(key)}
    scaled = {SCALED_LABEL: "true"} if is_scaled(service.container.labels) else {}
    container = replace(service.container, image=image, labels={**kept, SERVICE_LABEL: owner, **scaled})
    constraints, most = placement_of(stack, service)
    zones = tuple(f"node.labels.{zone.label}" for zone in service.zones)
    count = None if service.instances is None else instances.get(service.name, service.instances)
    spec = FleetSpec(
        "",
        _with_resolver(_with_drain(container, site, is_routed=_is_routed(container)), site),
        {},
        count,
        service.ports,
        service.limits,
        service.reservations,
        tuple(sorted(set(constraints))),
        tuple(dict.fromkeys((*service.spreads, *zones))),
        most,
        service.restart,
        service.networks,
        service.log_driver,
        service.log_options,
    )
    digest = spec_digest(spec)
    release = service.release or digest[:_SHORT_DIGEST]
    labels = _stack_labels(service.container.labels)
    labels |= {STACK_LABEL: stack.project, SERVICE_LABEL: owner, RELEASE_LABEL: release, DIGEST_LABEL: digest}
    if not service.can_move:
        labels[MOVES_LABEL] = "false"
    named = replace(
        spec,
        name=engine_name(stack.project, service.name, release),
        container=_with_release(spec.container, release),
        labels=labels,
    )
    return DesiredService(
        service.name,
        named,
        release,
        digest,
        service.needs,
        service.strategy,
        service.why,
        service.parallelism,
        service.can_move,
        service.container.image,
        service.always_pull,
        service.zones,
        service.instances,
    )


def _stack_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels about all instances, under one prefix: the engine service keeps them for the acting daemon."""
    return {f"mesh.{label_name(key)}": value for key, value in sorted(labels.items()) if is_stack_label(key)}


def _with_drain(container: FleetContainer, site: StackSite, *, is_routed: bool) -> FleetContainer:
    """Return the container with the signal that begins a drain, unless the file has a signal of its own.

    The daemon drains what it routes to; another container would never get its SIGTERM.
    """
    if container.stop_signal or not is_routed:
        return container
    grace = int(site.drain_seconds * 1_000_000_000) + (container.stop_grace or _DEFAULT_GRACE)
    labels = {**container.labels, STOP_GRACE_LABEL: str(grace // 1_000_000_000)}
    return replace(container, labels=labels, stop_signal=_DRAIN_SIGNAL, stop_grace=grace)


def _with_resolver(container: FleetContainer, site: StackSite) -> FleetContainer:
    nameservers = container.nameservers or site.nameservers
    if not site.nameservers or not set(nameservers) & set(site.nameservers):
        return container
    domains = container.search_domains
    if site.search_domain and "." not in domains and site.search_domain not in domains:
        domains = (*domains, site.search_domain)
    return replace(container, nameservers=nameservers, search_domains=domains)


def _resolver_problems(service: StackService, site: StackSite) -> tuple[Problem, ...]:
    own = service.container.nameservers
    if not own or not site.nameservers or set(own) & set(site.nameservers):
        return ()
    subject = f"service {escape_unprintable(service.name)}, dns"
    reason = "the mesh's name server is not among them, so routing names do not resolve"
    remedy = f"add {site.nameservers[0]}, or remove dns"
    return (Problem(Code.STACK_KEY_IGNORED, Severity.WARNING, subject, reason, remedy, where=service.where),)


def _with_release(container: FleetContainer, release: str) -> FleetContainer:
    """Return the container with a release label, if it is routed to and has none."""
    if not _is_routed(container) or label_key(container.labels, "routing.release"):
        return container
    return replace(container, labels={**container.labels, ADDED_RELEASE_LABEL: release})


def _is_routed(container: FleetContainer) -> bool:
    names = (label_name(key) or "" for key in container.labels)
    return any(name.startswith((ROUTE, PUBLISH)) for name in names)


def engine_name(project: str, service: str, release: str) -> str:
    """Return the name of an engine service, `<project>_<service>--<release>`.

    The engine takes at most 63 letters, digits, hyphens and underscores, with a letter or a digit at the end (swarmkit,
    manager/controlapi/common.go). Another name is made to fit, and gets a digest of what it was.
    """
    name = f"{project}_{service}--{release}"
    fitting = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    if fitting == name and len(name) <= _MOST_NAME and name[-1].isalnum():
        return name
    suffix = hashlib.sha256(name.encode()).hexdigest()[:_SHORT_DIGEST]
    return f"{fitting[: _MOST_NAME - _SHORT_DIGEST - 1]}-{suffix}"


def with_digest_in_name(desired: DesiredService, project: str) -> DesiredService:
    """Return it under a name of its own, for when its name is taken by another content of the same release.

    A file may say `routing.release: v2` and change something else. The releases are then two engine services of one
    release of the mesh. Compare the labels of engine services, not their names.
    """
    name = engine_name(project, desired.name, f"{desired.release}-{desired.digest[:_SHORT_DIGEST]}")
    return replace(desired, spec=replace(desired.spec, name=name))
