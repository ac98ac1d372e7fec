"""Reads a stack from compose files, labels and environment entries. Pure.

A service is had as its files mean it, or refused alone, with every reason. What changes nothing is a warning. The table
of the keys (`mesh.sources.compose.keys`) says which is which.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from mesh.config.labels.parse import ParsedLabels, label_key, parse_labels
from mesh.config.labels.values import LabelRefusedError, escape_unprintable, parse_count, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Name, Transport
from mesh.platform.fleet.protocol import FleetMount, FleetPort, FleetRestart
from mesh.platform.stacks.container import read_container
from mesh.platform.stacks.entries import is_placement, parse_constraint, parse_spread, read_entries
from mesh.platform.stacks.model import Stack, StackAffinity, StackAffinityKind, StackService, StackStrategy
from mesh.platform.stacks.mounts import StackResources, read_files, read_mounts, writes_data
from mesh.platform.stacks.order import order_services, read_needs
from mesh.platform.stacks.ports import read_ports
from mesh.platform.stacks.resources import read_resources
from mesh.platform.stacks.values import (
    PlainValue,
    StackKeys,
    StackValueError,
    parse_duration,
    parse_pairs,
    parse_text,
    parse_texts,
    parse_whole,
)
from mesh.sources.compose.keys import KeyUse, service_key
from mesh.sources.compose.links import link_problems
from mesh.sources.compose.model import ComposeFile, ComposeService

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "arm": "armv7l"}
"""Names of images -> those that the engines give."""
_HANDLED = frozenset({"build", "container_name", "network_mode", "networks", "links"})
"""Keys whose value decides, so that the table alone does not say what becomes of them."""
_ACCEPTED = ("default", "bridge")
_MOST_INSTANCES = 1000
_PARALLELISM = "rolling_updates.parallelism"


def read_stack(
    content: ComposeFile,
    project: str,
    environments: Mapping[str, Mapping[str, str]],
    domain: Name,
    directory: str = "/",
    *,
    unread: Collection[str] = (),
) -> Stack:
    """Return the stack of one project, with every problem of its services.

    `environments` has the variables of each service, as `EnvironmentReader` reads them. `domain` is the cluster domain,
    and `directory` the absolute path in which relative paths of files begin. `unread` are the services whose variables
    are not all known, which are refused: without them they would be other containers.
    """
    resources = StackResources(project, directory, content.resources)
    problems = list(content.problems)
    refused = {*content.refused, *unread}
    services: dict[str, StackService] = {}
    served: dict[str, tuple[Name, ...]] = {}
    active = {name: service for name, service in content.services.items() if service.is_active}
    for name, written in active.items():
        if name in refused:
            continue
        reader = _StackServiceReader(written, project, resources, domain)
        service = reader.read(environments.get(name, {}))
        problems += reader.problems
        if any(problem.severity is Severity.ERROR for problem in reader.key_problems):
            refused.add(name)
        else:
            services[name] = service
        if reader.names:
            served[name] = reader.names
    problems += link_problems(active, served)
    problems += _alias_problems(active, served, domain)
    ordered, found = order_services(services, frozenset(active), refused)
    problems += found
    return Stack(
        project,
        tuple(ordered),
        tuple(problems),
        frozenset(refused | (services.keys() - {service.name for service in ordered})),
        content.broken,
    )


class _StackServiceReader:
    """Reads one service."""

    def __init__(self, written: ComposeService, project: str, resources: StackResources, domain: Name) -> None:
        self._written = written
        self._keys = StackKeys(written)
        self._resources = resources
        self._labels = dict(written.labels) | read_ports(self._keys, written.labels)
        self._parsed = self._parse_labels(f"{project}/{written.name}", domain)

    @property
    def names(self) -> tuple[Name, ...]:
        """The routing names of the service."""
        return () if self._parsed.service is None else self._parsed.service.names

    @property
    def key_problems(self) -> list[Problem]:
        """The problems of its keys: one error refuses the service. A label that is refused counts as absent."""
        return self._keys.problems

    @property
    def problems(self) -> list[Problem]:
        """All problems, each with its place."""
        of_labels = [
            replace(problem, where=self._written.label_where.get(problem.label or "", self._written.where))
            for problem in self._parsed.problems
        ]
        return [*of_labels, *self._keys.problems]

    def _parse_labels(self, owner: str, domain: Name) -> ParsedLabels:
        subject = f"service {escape_unprintable(self._written.name)}"
        return parse_labels(self._labels, owner=owner, subject=subject, domain=domain)

    def read(self, environment: Mapping[str, str]) -> StackService:
        """Return the service as far as it can be read."""
        keys = self._keys
        self._report_keys()
        mounts = read_mounts(keys, self._resources)
        variables = {name: value for name, value in environment.items() if not is_placement(name)}
        container = read_container(keys, variables, self._labels, mounts, read_files(keys, self._resources))
        if not container.image:
            keys.refuse("image", "it has no image", "write image: NAME:TAG")
        limits, reservations = read_resources(keys)
        placement = read_entries(keys, self._written.where)
        self._report_own_affinity(placement.affinities)
        data = writes_data(mounts)
        strategy, why = self._strategy(data)
        networks = self._networks()
        nothing: tuple[str, ...] = ()
        written_constraints = keys.take("deploy.placement.constraints", _constraints, nothing)
        return StackService(
            self._written.name,
            self._written.where,
            container,
            self._instances(),
            read_needs(keys, self._written, self._label("depends")),
            () if networks else self._ports(),
            limits,
            reservations,
            (*written_constraints, *self._platform(), *placement.constraints),
            placement.affinities,
            placement.zones,
            keys.take("deploy.placement.preferences", parse_spread, ()),
            keys.take("deploy.placement.max_replicas_per_node", parse_whole, 0),
            strategy,
            why,
            self._parallelism(),
            data is None or placement.may_move,
            self._parsed.release or "",
            self._always_pull(),
            self._restart(),
            networks,
            keys.take("logging.driver", parse_text, ""),
            keys.take("logging.options", parse_pairs, {}),
        )

    def _label(self, name: str) -> str | None:
        """Return the value of a label under either prefix; None if there is none."""
        key = label_key(self._labels, name)
        return None if key is None else self._labels[key].strip()

    def _flag(self, name: str) -> bool | None:
        text = self._label(name)
        return None if text is None or text.lower() not in ("true", "false") else text.lower() == "true"

    def _report_keys(self) -> None:
        """Report the keys that are refused or ignored, unless their value says nothing."""
        keys = self._keys
        told: set[str] = set()
        for path in keys.paths():
            row = service_key(path)
            above = path.rpartition(".")[0]
            if row is None or not keys.has(path) or path in _HANDLED or above in told | _HANDLED:
                continue
            if row.use is KeyUse.REFUSED and not _is_zero(keys.get(path)):
                told.add(path)
                keys.refuse(path, row.becomes, row.remedy, Code.STACK_KEY_REFUSED)
            elif row.use is KeyUse.IGNORED:
                told.add(path)
                keys.warn(path, row.becomes, row.remedy)
        self._report_special()

    def _report_special(self) -> None:
        keys = self._keys
        for path in ("deploy", "healthcheck", "logging"):
            if keys.has(path) and not isinstance(keys.get(path), dict):
                keys.refuse(path, "it is not a mapping", "write KEY: VALUE below it")
        for path in ("build", "container_name"):
            row = service_key(path)
            if row is None or not keys.has(path):
                continue
            if path == "build" and keys.has("image"):
                keys.warn(path, "image is deployed, and nothing is built", "build and push the image before")
            else:
                keys.refuse(path, row.becomes, row.remedy, Code.STACK_KEY_REFUSED)
        networks = keys.get("networks")
        if networks and not (isinstance(networks, dict | list) and all(name in _ACCEPTED for name in networks)):
            row = service_key("networks")
            keys.warn("networks", row.becomes if row else "", "remove it")

    def _networks(self) -> tuple[str, ...]:
        mode = self._keys.take("network_mode", parse_text, "")
        if mode not in ("", "default", "bridge", "host"):
            row = service_key("network_mode")
            if row is not None:
                self._keys.refuse("network_mode", row.becomes, row.remedy, Code.STACK_KEY_REFUSED)
        return ("host",) if mode == "host" else ()

    def _report_own_affinity(self, affinities: tuple[StackAffinity, ...]) -> None:
        """Refuse an instance that is to run only where an instance of its own service runs: there is no first one."""
        for affinity in affinities:
            is_own = affinity.kind is StackAffinityKind.SERVICE and affinity.name == self._written.name
            is_own |= affinity.kind is StackAffinityKind.LABEL and self._labels.get(affinity.name) == affinity.value
            if affinity.is_together and is_own:
                reason = "it is an affinity of the service to itself, so no instance could be the first"
                self._keys.refuse("environment", reason, "bind it with constraint:node==NAME", Code.STACK_PLACEMENT)

    def _ports(self) -> tuple[FleetPort, ...]:
        service = self._parsed.service
        if service is None:
            return ()
        ports = {(route.container_port, route.transport) for route in service.routes}
        ports |= {(publish.container_port, publish.transport) for publish in service.publishes}
        order = list(Transport)
        return tuple(
            FleetPort(port, str(transport))
            for port, transport in sorted(ports, key=lambda pair: (pair[0], order.index(pair[1])))
        )

    def _instances(self) -> int | None:
        keys, scale = self._keys, self._parsed.scale
        mode = keys.take("deploy.mode", parse_text, "replicated")
        if mode not in ("replicated", "global"):
            remedy = "write replicated or global"
            keys.refuse("deploy.mode", f"{quote_value(mode)} is no mode of a service", remedy, Code.STACK_KEY_REFUSED)
        is_global = self._flag("global")
        if is_global or (is_global is None and mode == "global"):
            if scale is not None and scale > 1:
                keys.warn("labels", f"scale is {scale}, but a global service has one on each worker", "remove one")
            return None
        if scale is not None:
            return scale
        counts = [
            keys.take(path, lambda value: parse_whole(value, 0, _MOST_INSTANCES), -1)
            for path in ("scale", "deploy.replicas")
        ]
        return next((count for count in counts if count >= 0), 1)

    def _strategy(self, data: FleetMount | None) -> tuple[StackStrategy, str]:
        written = self._label("release.strategy")
        if written in (StackStrategy.ROLLING, StackStrategy.REPLACE):
            return StackStrategy(written), f"the label release.strategy says {written}"
        is_rolling = self._flag("rolling_updates")
        if is_rolling is not None:
            strategy = StackStrategy.ROLLING if is_rolling else StackStrategy.REPLACE
            return strategy, f"the label rolling_updates is {'true' if is_rolling else 'false'}"
        if data is not None:
            return StackStrategy.REPLACE, f"it writes to the {data.kind} at {escape_unprintable(data.target)}"
        return StackStrategy.ROLLING, "nothing says otherwise, and it writes to no volume"

    def _parallelism(self) -> int:
        """Return the number of the label; what is no number is 1, as where the label comes from."""
        text = self._label(_PARALLELISM) if self._flag("rolling_updates") else None
        try:
            return 1 if text is None else parse_count(text)
        except LabelRefusedError:
            reason = f"the label {_PARALLELISM} is {quote_value(text or '')}, which counts as 1"
            self._keys.warn("labels", reason, "write a number from 1")
            return 1

    def _always_pull(self) -> bool:
        policy = self._keys.take("pull_policy", parse_text, "missing")
        if policy == "build":
            self._keys.refuse("pull_policy", "workers pull images", "build and push the image", Code.STACK_KEY_REFUSED)
        return self._flag("latest_image") or policy in ("always", "daily", "weekly") or policy.startswith("every_")

    def _restart(self) -> FleetRestart:
        keys = self._keys
        restart = FleetRestart()
        written = keys.take("restart", parse_text, "")
        policy, _, attempts = written.partition(":")
        if policy in ("no", "false"):
            restart = FleetRestart(condition="none")
        elif policy == "on-failure":
            most = int(attempts) if attempts.isascii() and attempts.isdecimal() and len(attempts) < 6 else 0
            restart = FleetRestart(condition="on-failure", attempts=most)
        elif policy not in ("", "always", "unless-stopped"):
            keys.refuse("restart", f"{quote_value(written)} is no restart policy", "write always, on-failure or no")
        path = "deploy.restart_policy"
        condition = keys.take(f"{path}.condition", parse_text, restart.condition)
        if condition not in ("any", "on-failure", "none"):
            keys.refuse(f"{path}.condition", f"{quote_value(condition)} is no condition", "write any or on-failure")
        return FleetRestart(
            condition,
            keys.take(f"{path}.delay", parse_duration, restart.delay),
            keys.take(f"{path}.max_attempts", parse_whole, restart.attempts),
            keys.take(f"{path}.window", parse_duration, restart.window),
        )

    def _platform(self) -> tuple[str, ...]:
        return self._keys.take("platform", _platform_constraints, ())


def _alias_problems(
    services: Mapping[str, ComposeService], served: Mapping[str, tuple[Name, ...]], domain: Name
) -> Iterator[Problem]:
    """Yield a warning for each link under a name that no name server knows."""
    known = {name for names in served.values() for name in names}
    for service in services.values():
        for link in service.links:
            is_said_elsewhere = link.target == link.alias and link.target not in served
            if is_said_elsewhere or link.alias in known or f"{link.alias}.{domain}" in known:
                continue
            subject = f"service {escape_unprintable(service.name)}, {link.key}"
            reason = f"{quote_value(link.alias)} is no routing name, so it does not resolve"
            names = served.get(link.target, ())
            remedy = f"use {names[0]}" if names else "use the routing name of that service"
            yield Problem(Code.STACK_KEY_IGNORED, Severity.WARNING, subject, reason, remedy, where=link.where)


def _constraints(value: PlainValue) -> tuple[str, ...]:
    return tuple(parse_constraint(text) for text in parse_texts(value))


def _platform_constraints(value: PlainValue) -> tuple[str, ...]:
    system, _, architecture = parse_text(value).partition("/")
    architecture = architecture.partition("/")[0]
    if not re.fullmatch(r"[a-z0-9_]{1,20}", system) or not re.fullmatch(r"[a-z0-9_]{0,20}", architecture):
        raise StackValueError(f"{quote_value(parse_text(value))} is no platform", "write one such as linux/amd64")
    if not architecture:
        return (f"node.platform.os=={system}",)
    return (
        f"node.platform.os=={system}",
        f"node.platform.arch=={_ARCHITECTURES.get(architecture, architecture)}",
    )


def _is_zero(value: PlainValue) -> bool:
    """Return whether a number says that there is no bound: `memswap_limit: 0`."""
    return value in ("0", "-1")
