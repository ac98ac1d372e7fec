"""`vipmesh check`: finds every problem of compose files, with file and line, before anything runs.

Each file is checked on its own. A conflict between two services of one file is found; a conflict with another project
is known to the cluster only.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mesh.config.labels.parse import label_key, parse_labels, port_label
from mesh.config.labels.values import Pool, escape_unprintable
from mesh.config.name_policy import NamePolicy
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import PortPublication, Route, Service
from mesh.sources.compose.model import DEFAULT_LIMITS, ComposeFile, ComposeLimits, ComposeService
from mesh.sources.compose.ports import endpoint_port_problems
from mesh.sources.compose.source import load_compose_file, project_of

_WHERE = re.compile(r"(.*?)(?::(\d+))?(?::\d+)?", re.DOTALL)


def check_files(
    paths: Sequence[Path],
    env: Mapping[str, str],
    *,
    policy: NamePolicy,
    pool: Pool | None = None,
    limits: ComposeLimits = DEFAULT_LIMITS,
) -> list[Problem]:
    """Return every problem of the files, in order of `paths` and then of lines; each has `where`.

    `env` supplies the variables, the domain of `policy` completes bare names, and fixed VIPs must lie in `pool` unless
    it is None. `limits` bounds each file.
    """
    problems: list[Problem] = []
    for path in paths:
        file = load_compose_file(path, env, limits)
        found = [*file.problems, *_check_services(file, project_of([path], [file]), policy, pool)]
        problems.extend(sorted(found, key=_line))
    return problems


def _check_services(file: ComposeFile, project: str, policy: NamePolicy, pool: Pool | None) -> Iterator[Problem]:
    """Yield the problems of each service, and the conflicts between services."""
    claims: dict[object, _ExclusiveClaim] = {}
    for name, declared in file.services.items():
        subject = f"service {escape_unprintable(name)}"
        owner, commands = f"{project}/{name}", not declared.endpoints
        parsed = parse_labels(
            declared.labels, owner=owner, subject=subject, domain=policy.domain, pool=pool, commands=commands
        )
        yield from endpoint_port_problems(declared)
        for problem in parsed.problems:
            yield replace(problem, where=declared.label_where.get(problem.label or "", declared.where))
        yield from _refused_names(declared, parsed.service, subject, policy) if parsed.service is not None else ()
        for claim in _claims(declared, parsed.service) if parsed.service is not None else ():
            first = claims.setdefault(claim.key, claim)
            if first.service != name:
                yield claim.refusal(first, subject)


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


def _line(problem: Problem) -> int:
    """Return the line that a problem is on; 0 if it is unknown."""
    match = _WHERE.fullmatch(problem.where or "")
    return int(match[2]) if match and match[2] else 0
