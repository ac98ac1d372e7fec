"""Parses container labels into a service and the endpoint's own settings, and reports what is wrong with them.

The labels are the only interface for users, so parsing is strict and reports everything: a wrong label counts as
absent, and the other labels are still used. Nothing raises; every finding is a `Problem`.

Two prefixes mean the same: `aliyun.`, so that files for that platform run unchanged, and `mesh.`. The result does not
depend on the order of the labels, because container engines do not keep it: ports are processed in ascending order, TCP
before UDP before SCTP. The grammar of the values is in `mesh.config.labels.values`; the labels of the probe are in
`mesh.config.labels.probe`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

from mesh.config.labels import values
from mesh.config.labels.probe import read_probe
from mesh.config.labels.reader import KNOWN_LABELS, LABEL_PREFIXES, PUBLISH, ROUTE, LabelReader, label_key
from mesh.config.labels.values import LabelRefusedError, Pool
from mesh.model.codes import Code
from mesh.model.problem import Problem
from mesh.model.service import (
    BY_WEIGHT,
    Forwarding,
    Name,
    PortPublication,
    ReleaseRules,
    Route,
    Scheduler,
    SchedulerFlag,
    Service,
    Transport,
)
from mesh.model.table import RealServer

__all__ = ["KNOWN_LABELS", "LABEL_PREFIXES", "ParsedLabels", "label_key", "parse_labels", "port_label"]


_TOO_MANY_NAMES = (
    f"with the labels before it there are more than {values.MAX_NAMES} names",
    f"write at most {values.MAX_NAMES} in all",
)


@dataclass(frozen=True, slots=True)
class ParsedLabels:
    """The meaning of the labels of one container."""

    service: Service | None
    """None if no label routes to the container or publishes it, or if all such labels are refused."""
    settings: RealServer
    """The endpoint's own settings: its weight (0..1000), its connection limits and its forwarding method."""
    release: str | None
    problems: tuple[Problem, ...]
    scale: int | None = None
    """How many instances the service has, 1..1000; None if no label says it."""
    slow_start: int = 0
    """Seconds over which the endpoint's weight grows when it begins to serve, 1..900; 0 for not at all."""
    rules: ReleaseRules | None = None
    """How its release takes the place of another one by shares; None: it does not."""


def parse_labels(
    labels: Mapping[str, str],
    *,
    owner: str,
    subject: str,
    domain: Name,
    pool: Pool | None = None,
    commands: bool = True,
) -> ParsedLabels:
    """Parse the labels of one container of `owner` (`project/service`).

    `subject` begins every message (`service server`), `domain` is appended to routing names without a dot, and a fixed
    VIP must lie in `pool` unless that is None. `commands` says whether commands can run inside the container. Labels
    with other prefixes are ignored.
    """
    sheet = LabelReader(labels, subject)
    routes = _routes(sheet, domain)
    publishes = _publishes(sheet)
    fixed_vip = sheet.take("routing.vip", partial(values.parse_vip, pool=pool), None)
    scheduler = sheet.take("routing.scheduler", values.parse_scheduler, Scheduler.WRR)
    flags = _scheduler_flags(sheet, scheduler)
    persistence = sheet.take("routing.session_sticky", values.parse_session_sticky, 0)
    settings = _settings(sheet, routes, publishes)
    slow_start = _slow_start(sheet, scheduler)
    release = sheet.take("routing.release", values.parse_release, None)
    scale = sheet.take("scale", values.parse_count, None)
    _check_stack_labels(sheet)
    probe = read_probe(sheet, commands)
    if sheet.starting_with("log"):
        from mesh.config.labels.logs import read_log_labels  # noqa: PLC0415 -- few have these labels

        read_log_labels(sheet)
    if sheet.starting_with("auto_scaling."):
        from mesh.config.labels.auto_scaling import check_auto_scaling  # noqa: PLC0415 -- few have these labels

        check_auto_scaling(sheet)
    rules = None
    if sheet.starting_with("release."):
        from mesh.config.labels.release_checks import check_release_labels  # noqa: PLC0415 -- few have these labels
        from mesh.config.labels.release_rules import read_release_rules  # noqa: PLC0415 -- few have these labels

        check_release_labels(sheet, commands)
        rules = read_release_rules(sheet)
    if not sheet.has_port_labels:
        sheet.warn_without_service()
    name = routes[0].name if routes else _own_name(sheet, owner, domain) if publishes else None
    service = None
    if name is not None:
        service = Service(owner, name, routes, publishes, fixed_vip, scheduler, persistence, probe, flags)
    ruled = rules if release else None
    return ParsedLabels(service, settings, release, tuple(sheet.problems), scale, slow_start, ruled)


def _check_stack_labels(sheet: LabelReader) -> None:
    """Report the labels that `vipmesh deploy` acts on and whose values it could not read."""
    for name in ("global", "latest_image", "rolling_updates"):
        sheet.take(name, values.parse_flag, False)
    # The platform that the label comes from takes everything that is no number as 1.
    if sheet.has("rolling_updates.parallelism") and not sheet.has("rolling_updates"):
        remedy = "add rolling_updates or remove it"
        sheet.warn(Code.LABEL_WITHOUT_EFFECT, "rolling_updates.parallelism", "it has no effect on its own", remedy)


def port_label(declares: type[Route | PortPublication], container_port: int, transport: Transport) -> str:
    """Return the label, without prefix, that routes to a container port or publishes it."""
    prefix = ROUTE if declares is Route else PUBLISH
    return f"{prefix}{container_port}" + ("" if transport is Transport.TCP else f"/{transport}")


def _routes(sheet: LabelReader, domain: Name) -> tuple[Route, ...]:
    """Return the routes of all labels. All names share one VIP, whose listen ports lead to one container port each."""
    routes: dict[Route, None] = {}
    leads_to: dict[tuple[int, Transport], int] = {}
    is_full = False
    for label in sheet.ports(ROUTE):
        if is_full:
            sheet.refuse(Code.VALUE_OUT_OF_RANGE, label.name, *_TOO_MANY_NAMES)
            continue
        grammar = partial(
            values.parse_routing_names, container_port=label.number, transport=label.transport, domain=domain
        )
        found: tuple[Route, ...] = sheet.take(label.name, grammar, ())
        if len(routes) + len(found) > values.MAX_NAMES:
            is_full = True
            sheet.refuse(Code.VALUE_OUT_OF_RANGE, label.name, *_TOO_MANY_NAMES)
            continue
        clash = next((r for r in found if (r.listen_port, r.transport) in leads_to), None)
        if clash is not None:
            other = leads_to[clash.listen_port, clash.transport]
            reason = f"{clash.transport} port {clash.listen_port} of the VIP already leads to container port {other}"
            candidates = chain((label.number,), range(8080, 65536))
            free = next((p for p in candidates if (p, label.transport) not in leads_to), label.number)
            sheet.refuse(
                Code.LISTEN_PORT_CLASH, label.name, reason, f"write another listen port, such as {clash.name}:{free}"
            )
            continue
        for route in found:
            if route in routes:
                sheet.warn(
                    Code.WRITTEN_TWICE, label.name, f"{route.name}:{route.listen_port} is listed twice", "write it once"
                )
            routes[route] = None
        leads_to.update({(route.listen_port, route.transport): route.container_port for route in found})
    return tuple(routes)


def _publishes(sheet: LabelReader) -> tuple[PortPublication, ...]:
    publishes: list[PortPublication] = []
    by_hand: dict[tuple[int, Transport], int] = {}
    for label in sheet.ports(PUBLISH):
        grammar = partial(values.parse_publish, container_port=label.number, transport=label.transport)
        publish: PortPublication | None = sheet.take(label.name, grammar, None)
        if publish is None:
            continue
        if publish.port is not None:
            other = by_hand.setdefault((publish.port, publish.transport), publish.container_port)
            if other != publish.container_port:
                reason = f"{publish.transport} port {publish.port} is already published for container port {other}"
                sheet.refuse(Code.PUBLISHED_PORT_CLASH, label.name, reason, "write another number or auto")
                continue
        publishes.append(publish)
    return tuple(publishes)


def _scheduler_flags(sheet: LabelReader, scheduler: Scheduler) -> frozenset[SchedulerFlag]:
    flags: frozenset[SchedulerFlag] = sheet.take("routing.scheduler_flags", values.parse_scheduler_flags, frozenset())
    if flags and scheduler not in (Scheduler.SH, Scheduler.MH):
        reason = f"the scheduler {scheduler} has no flags"
        sheet.refuse(
            Code.SCHEDULER_OR_FLAGS,
            "routing.scheduler_flags",
            reason,
            "write routing.scheduler: mh or sh, or remove it",
        )
        return frozenset()
    return flags


def _slow_start(sheet: LabelReader, scheduler: Scheduler) -> int:
    seconds = sheet.take("routing.slow_start_seconds", values.parse_slow_start, 0)
    if seconds and scheduler not in BY_WEIGHT:
        reason = f"the scheduler {scheduler} does not divide new connections by weight"
        remedy = "write routing.scheduler: wrr, wlc, sed or nq, or remove routing.slow_start_seconds"
        sheet.warn(Code.LABEL_WITHOUT_EFFECT, "routing.slow_start_seconds", reason, remedy)
    return seconds


def _settings(sheet: LabelReader, routes: tuple[Route, ...], publishes: tuple[PortPublication, ...]) -> RealServer:
    weight = sheet.take("routing.weight", values.parse_weight, 1)
    upper = sheet.take("routing.max_connections", values.parse_connection_limit, 0)
    lower = sheet.take("routing.min_connections", values.parse_connection_limit, 0)
    if lower and not upper:
        sheet.warn(
            Code.LABEL_WITHOUT_EFFECT,
            "routing.min_connections",
            "it has no effect on its own",
            "add routing.max_connections or remove it",
        )
        lower = 0
    elif lower > upper:
        reason = f"{lower} is above routing.max_connections, {upper}"
        remedy = "write a smaller number, or remove it to use three quarters of the maximum"
        sheet.refuse(Code.VALUE_OUT_OF_RANGE, "routing.min_connections", reason, remedy)
        lower = 0
    forwarding = sheet.take("routing.forwarding", values.parse_forwarding, Forwarding.MASQUERADE)
    if forwarding is not Forwarding.MASQUERADE and (moved := _moved_port(routes, publishes)):
        reason = f"{forwarding} does not change the port, but {moved}"
        remedy = "write masquerade, or the same port on both sides"
        sheet.refuse(Code.FORWARDING_METHOD, "routing.forwarding", reason, remedy)
        forwarding = Forwarding.MASQUERADE
    return RealServer(weight, forwarding, upper, lower)


def _moved_port(routes: tuple[Route, ...], publishes: tuple[PortPublication, ...]) -> str | None:
    """Describe a port whose number differs between clients and the container; None if there is none."""
    for route in routes:
        if route.listen_port != route.container_port:
            return f"port {route.listen_port} leads to container port {route.container_port}"
    for publish in publishes:
        if publish.port != publish.container_port:
            return f"published port {publish.port or 'auto'} leads to container port {publish.container_port}"
    return None


def _own_name(sheet: LabelReader, owner: str, domain: Name) -> Name | None:
    """Return the name of a service that is published but not routed."""
    try:
        return values.parse_dns_name(f"{owner.rpartition('/')[2]}.{domain}", domain)
    except LabelRefusedError as refused:
        sheet.refuse(refused.code, None, refused.reason, f"give it a name with a label {ROUTE}<container port>")
        return None
