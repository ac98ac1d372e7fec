"""`vipmesh check`: finds every problem of compose files, with file and line, before anything runs.

Several files are one project, as `vipmesh run` takes them. A conflict between two services of the project is found; a
conflict with another project is known to the cluster only.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mesh.config.labels.parse import label_key, parse_labels, port_label
from mesh.config.labels.values import Pool, escape_unprintable
from mesh.config.name_policy import NamePolicy
from mesh.config.settings import Settings
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Name, PortPublication, Route, Service
from mesh.sources.compose.environment import EnvironmentReader
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.limits import DEFAULT_LIMITS, ComposeBudget, ComposeLimits, ComposeProblems
from mesh.sources.compose.links import link_problems
from mesh.sources.compose.model import ComposeFile, ComposeService
from mesh.sources.compose.ports import endpoint_port_problems, scale_problems

_ENVIRONMENTS = 4
"""How many times the entries of a file its environments may have: many services name one `env_file`."""
_WHERE = re.compile(r"(.*?)(?::(\d+))?(?::\d+)?", re.DOTALL)


def check_files(
    paths: Sequence[Path],
    env: Mapping[str, str],
    *,
    policy: NamePolicy,
    pool: Pool | None = None,
    limits: ComposeLimits = DEFAULT_LIMITS,
    settings: Settings | None = None,
) -> list[Problem]:
    """Return every problem of a project, in order of `paths` and then of lines; each has `where`.

    Problems of other files, which these name, come last.

    `env` supplies the variables, the domain of `policy` completes bare names, and fixed VIPs must lie in `pool` unless
    it is None. `limits` bounds each file. With `settings`, names and published ports beyond their quotas are warnings.
    """
    project = load_compose_project(paths, env, limits)
    found = [*project.content.problems, *_check_services(project.content, project.name, policy, pool, settings)]
    budget = ComposeBudget(limits, _ENVIRONMENTS * len(paths))
    reader, of_environment = EnvironmentReader(project.files, budget), ComposeProblems(limits.problems)
    for service in project.content.services.values():
        for problem in reader.read(service)[1]:
            of_environment.add(problem)
        if budget.excess is not None:  # aliases may stand for any number
            break
    found += of_environment.kept(str(paths[0]))
    order = {str(path): position for position, path in enumerate(paths)}
    return sorted(found, key=partial(_place, order))


def _check_services(
    file: ComposeFile, project: str, policy: NamePolicy, pool: Pool | None, settings: Settings | None
) -> Iterator[Problem]:
    """Yield the problems of each service, and the conflicts between services."""
    claims: dict[object, _ExclusiveClaim] = {}
    served: dict[str, tuple[Name, ...]] = {}
    claiming: list[tuple[ComposeService, Service]] = []
    for name, declared in file.services.items():
        subject = f"service {escape_unprintable(name)}"
        owner, commands = f"{project}/{name}", not declared.endpoints
        parsed = parse_labels(
            declared.labels, owner=owner, subject=subject, domain=policy.domain, pool=pool, commands=commands
        )
        yield from endpoint_port_problems(declared)
        yield from _log_driver_problems(declared)
        for problem in parsed.problems:
            yield replace(problem, where=declared.label_where.get(problem.label or "", declared.where))
        yield from scale_problems(declared, parsed.scale)
        if parsed.service is not None:
            yield from _refused_names(declared, parsed.service, subject, policy)
            served[name] = parsed.service.names
            claiming += [(declared, parsed.service)] if declared.is_active else []
        # Two services of different profiles may hold one name.
        for claim in _claims(declared, parsed.service) if parsed.service is not None and declared.is_active else ():
            first = claims.setdefault(claim.key, claim)
            if first.service != name:
                yield claim.refusal(first, subject)
    yield from link_problems(file.services, served)
    if settings is not None:
        yield from _beyond_quotas(claiming, settings)


def _log_driver_problems(service: ComposeService) -> Iterator[Problem]:
    if "logging" in service.keys:
        from mesh.sources.compose.log_drivers import log_driver_problems  # few files set a log driver

        yield from log_driver_problems(service)


@dataclass(frozen=True, slots=True)
class _ExclusiveClaim:
    """A name, VIP or published port, which only one service can hold."""

    service: str
    code: Code
    key: object
    what: str
    """The claimed thing in words: `the name restserver.local`."""
    label: str | None
    where: str
    remedy: str

    def refusal(self, first: "_ExclusiveClaim", subject: str) -> Problem:
        """Return the problem of a claim that another service of the file makes first."""
        about = subject if self.label is None else f"{subject}, label {escape_unprintable(self.label)}"
        reason = f"{self.what} is already claimed by service {escape_unprintable(first.service)} ({first.where})"
        return Problem(self.code, Severity.ERROR, about, reason, self.remedy, self.label, self.where)


def _refused_names(declared: ComposeService, service: Service, subject: str, policy: NamePolicy) -> Iterator[Problem]:
    """Yield a warning for each name that a worker with these settings refuses.

    Not an error: a name that the cluster has served since before there was such a rule goes on being served.
    """
    for route in service.routes:
        refusal = policy.refusal(route.name)
        if refusal is not None:
            label = label_key(declared.labels, port_label(Route, route.container_port, route.transport))
            where = declared.label_where.get(label or "", declared.where)
            about = subject if label is None else f"{subject}, label {escape_unprintable(label)}"
            yield Problem(Code.NAME_NOT_ALLOWED, Severity.WARNING, about, *refusal, label, where)


def _beyond_quotas(claiming: Sequence[tuple[ComposeService, Service]], settings: Settings) -> Iterator[Problem]:
    """Yield a warning for each name and published port that a worker with these settings refuses.

    Not an error: what an owner holds already stays, however much it is.
    """
    names = [len(service.names) for _, service in claiming]
    ports = [len(service.publishes) for _, service in claiming]
    if (
        max(names, default=0) <= settings.claims_container_names
        and max(ports, default=0) <= settings.claims_container_ports
        and sum(names) <= settings.claims_owner_names
        and sum(ports) <= settings.claims_owner_ports
    ):
        return
    from mesh.cli.quota_lint import QuotaLint
    from mesh.config.claim_quotas import claim_quotas

    quotas = QuotaLint(claim_quotas(settings))
    for declared, service in claiming:
        labels = {route.name: port_label(Route, route.container_port, route.transport) for route in service.routes}
        for refused, reason, remedy in quotas.refusals(service):
            if isinstance(refused, PortPublication):
                short = port_label(PortPublication, refused.container_port, refused.transport)
            else:
                short = labels[refused]
            label = label_key(declared.labels, short)
            about = f"service {escape_unprintable(declared.name)}"
            about += f", label {escape_unprintable(label)}" if label is not None else ""
            where = declared.label_where.get(label or "", declared.where)
            yield Problem(Code.CLAIM_QUOTA, Severity.WARNING, about, reason, remedy, label, where)


def _claims(declared: ComposeService, service: Service) -> Iterator[_ExclusiveClaim]:
    """Yield everything that only this service may hold."""

    def claim(code: Code, key: object, what: str, label: str | None, remedy: str) -> _ExclusiveClaim:
        full = label_key(declared.labels, label) if label is not None else None
        where = declared.label_where.get(full or "", declared.where)
        return _ExclusiveClaim(declared.name, code, key, what, full, where, remedy)

    labels = {
        route.name: port_label(Route, route.container_port, route.transport) for route in reversed(service.routes)
    }
    for name in service.names:
        remedy = "give each service names of its own"
        yield claim(Code.NAME_TAKEN, ("name", name), f"the name {name}", labels.get(name), remedy)
    if service.fixed_vip is not None:
        what = f"the VIP {service.fixed_vip}"
        remedy = "write another address or remove the label"
        yield claim(Code.VIP_TAKEN, ("vip", service.fixed_vip), what, "routing.vip", remedy)
    for publish in service.publishes:
        if publish.port is not None:
            label = port_label(PortPublication, publish.container_port, publish.transport)
            what = f"the published {publish.transport} port {publish.port}"
            key = (publish.transport, publish.port)
            yield claim(Code.PUBLISHED_PORT_TAKEN, key, what, label, "write another number or auto")


def _place(order: Mapping[str, int], problem: Problem) -> tuple[int, int]:
    """Return the position of a problem's file, and the line; 0 if that is unknown."""
    match = _WHERE.fullmatch(problem.where or "")
    file, line = (match[1], int(match[2] or 0)) if match else ("", 0)
    return order.get(file, len(order)), line
