"""`vipmesh deploy` and `undeploy`: make the engine run what compose files say, and remove it."""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesh.cli.documents import ProblemDocument
from mesh.cli.manager_only import refusal_here, require_manager_here
from mesh.cli.output import complain, print_json, printable
from mesh.cli.stack_access import (
    StackRequestError,
    no_swarm,
    print_failures,
    run_stack_verb,
    stack_applier,
)
from mesh.cli.stack_documents import DeployDocument, ServiceChangeDocument, ServiceFailureDocument
from mesh.config.labels.auto_scaling import parse_auto_scaling
from mesh.config.settings import Settings
from mesh.daemon.resolver import resolver_address
from mesh.model.codes import Code
from mesh.model.errors import MeshError, SettingsError
from mesh.model.problem import Problem, Severity
from mesh.platform.autoscaling.scaled_services import kept_instances
from mesh.platform.fleet.errors import FleetRefusedError
from mesh.platform.fleet.protocol import Fleet, FleetMountKind, FleetService
from mesh.platform.stacks.applier import ServiceFailure, StackApplier
from mesh.platform.stacks.differ import StackDiff, diff_stack
from mesh.platform.stacks.model import STACK_LABEL, Desired, Stack, StackSite
from mesh.platform.stacks.placing import zone_problems
from mesh.platform.stacks.running import RunningStack, projects_of, read_running
from mesh.platform.stacks.stack import read_stack
from mesh.platform.stacks.translate import images_of, translate
from mesh.sources.compose.environment import EnvironmentReader
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.limits import ComposeBudget, compose_limits
from mesh.sources.compose.model import project_name

_ENVIRONMENTS = 4
"""How many times the entries of a file its environments may have: many services name one `env_file`."""


def deploy(options: argparse.Namespace) -> int:
    """Run `vipmesh deploy`. Exit status 1 if a service is refused or did not become ready, or if somebody else changes
    the same services meanwhile.
    """
    return run_stack_verb(options, lambda settings, fleet: deploy_files(options, settings, fleet))


def undeploy(options: argparse.Namespace) -> int:
    """Run `vipmesh undeploy`. Exit status 1 if nothing runs of the project, or a container has not ended."""
    return run_stack_verb(options, lambda _, fleet: undeploy_project(options, fleet))


async def deploy_files(options: argparse.Namespace, settings: Settings, fleet: Fleet) -> int:
    """Deploy the files that the options name. Raises `MeshError`."""
    stack, problems = _read(options, settings)
    if stack.broken:
        return _report(_Deploy(options, stack.project, problems))
    is_active = await _prepare(options, fleet)
    applier = stack_applier(fleet, options)
    desired, problems = await _desired(stack, problems, settings, fleet if is_active else None, options)
    running = await applier.read(stack.project, asks_mesh=False) if is_active else RunningStack(stack.project)
    result = _Deploy(options, stack.project, problems, diff_stack(desired, running, prune=options.prune))
    if not options.json:
        _print_problems(problems)
        for line in result.diff.lines():
            print(printable(line), flush=True)
    if not options.dry_run:
        await _apply(result, applier, desired, running)
    return _report(result)


async def undeploy_project(options: argparse.Namespace, fleet: Fleet) -> int:
    """Remove what runs of a project, and name the volumes that stay. Raises `MeshError`."""
    await require_manager_here(options, fleet)
    services = await fleet.services()
    if options.project not in projects_of(services):
        known = ", ".join(projects_of(services)) or "none"
        raise StackRequestError(
            Code.STACK_UNKNOWN, f"nothing of project {options.project} was deployed; deployed are: {known}"
        )
    applier = stack_applier(fleet, options)
    running = await applier.read(options.project, asks_mesh=False)
    mounts = (
        mount
        for releases in running.releases.values()
        for each in releases
        for mount in each.engine.spec.container.mounts
    )
    volumes = tuple(sorted({each.source for each in mounts if each.kind is FleetMountKind.VOLUME and each.source}))
    outcome = await applier.remove(options.project)
    if options.json:
        failures = tuple(_failure_document(each) for each in outcome.failures)
        print_json(DeployDocument(options.project, False, steps=outcome.steps, failures=failures, volumes=volumes))
    else:
        if volumes:
            print(printable(f"volumes that stay: {', '.join(volumes)}"))
        print_failures(outcome.failures)
    return 1 if outcome.failures else 0


@dataclass(slots=True)
class _Deploy:
    """The outcome of a deploy."""

    options: argparse.Namespace
    project: str
    problems: tuple[Problem, ...]
    diff: StackDiff = field(default_factory=lambda: StackDiff("", ()))
    steps: tuple[str, ...] = ()
    failures: tuple[ServiceFailure, ...] = ()
    error: MeshError | None = None

    @property
    def is_in_order(self) -> bool:
        """Whether everything was done."""
        refused = any(problem.severity is Severity.ERROR for problem in self.problems)
        return not refused and not self.failures and self.error is None


async def _apply(result: _Deploy, applier: StackApplier, desired: Desired, running: RunningStack) -> None:
    try:
        outcome = await applier.deploy(desired, prune=result.options.prune, planned=running)
        result.steps, result.failures = outcome.steps, outcome.failures
    except SettingsError:
        raise
    except MeshError as error:
        result.error, result.steps = error, applier.done


def _read(options: argparse.Namespace, settings: Settings) -> tuple[Stack, tuple[Problem, ...]]:
    """Return the stack of the files, and the problems of its environments beside its own."""
    limits = compose_limits(settings)
    project = load_compose_project(options.files, os.environ, limits)
    name = project.name if options.project is None else project_name(options.project)
    if options.project not in (None, name):
        raise StackRequestError(
            Code.STACK_UNKNOWN,
            f"project {options.project!r} is not a name that compose takes; write lower-case letters, digits, _ and -",
        )
    reader = EnvironmentReader(project.files, ComposeBudget(limits, _ENVIRONMENTS * len(options.files)))
    environments: dict[str, Mapping[str, str]] = {}
    problems: list[Problem] = []
    unread: set[str] = set()
    for service in project.content.services.values():
        if not service.is_active:
            continue  # compose does not read its files either
        environments[service.name], found = reader.read(service)
        problems.extend(found)
        if any(problem.severity is Severity.ERROR for problem in found):
            unread.add(service.name)
    directory = str(options.files[0].absolute().parent)
    stack = read_stack(project.content, name, environments, settings.dns_domain, directory, unread=unread)
    return stack, (*problems, *stack.problems)


async def _prepare(options: argparse.Namespace, fleet: Fleet) -> bool:
    """Make a swarm if that is asked for; return whether there is one. Raises `MeshError`."""
    state = await fleet.state()
    if state.is_active:
        await require_manager_here(options, fleet)
        return True
    if options.dry_run:
        return False
    if not options.init:
        raise await refusal_here(options, no_swarm(state))
    if state.live_restore:
        raise no_swarm(state)
    await fleet.initialize()
    if not options.json:
        print("made a swarm of this engine alone, which listens on 127.0.0.1 only", flush=True)
    return True


async def _desired(
    stack: Stack, problems: tuple[Problem, ...], settings: Settings, fleet: Fleet | None, options: argparse.Namespace
) -> tuple[Desired, tuple[Problem, ...]]:
    """Return what the fleet must have, without the services that its workers cannot run, and all problems."""
    resolver = resolver_address(settings)
    site = StackSite(
        () if resolver is None else (resolver,), settings.dns_domain, float(settings.dataplane_drain_timeout)
    )
    images = {} if fleet is None else await _look_up(stack, fleet, options)
    counts = {} if fleet is None else _kept_instances(stack, await fleet.services(STACK_LABEL))
    desired = translate(stack, images, site, counts)
    found = [*problems, *(each for each in desired.problems if each not in problems)]
    if fleet is not None:
        zones = zone_problems(desired, await fleet.workers())
        lacking = {each.name for each in desired.services if any(_is_about(problem, each.name) for problem in zones)}
        kept = tuple(each for each in desired.services if each.name not in lacking)
        desired = replace(desired, services=kept, refused=desired.refused | lacking)
        found.extend(zones)
    return desired, tuple(found)


def _kept_instances(stack: Stack, services: Sequence[FleetService]) -> Mapping[str, int]:
    """Return the numbers that autoscaling has in force, by service: a deploy is no reason to change them."""
    running = read_running(stack.project, services, (), {})
    found: dict[str, int] = {}
    for service in stack.services:
        policy = parse_auto_scaling(service.container.labels, "")[0]
        if policy is None or service.instances is None:
            continue
        counts = [each.engine.spec.instances for each in running.of(service.name)]
        now = max((count for count in counts if count is not None), default=None)
        found[service.name] = kept_instances(policy, service.instances, now, time.time())
    return found


def _is_about(problem: Problem, service: str) -> bool:
    return f"service {service}" in problem.subject.split(",")


async def _look_up(stack: Stack, fleet: Fleet, options: argparse.Namespace) -> Mapping[str, str]:
    """Return the reference with its digest of each image. One that cannot be had is left to the engine, with a word."""
    found: dict[str, str] = {}
    for reference, pull in images_of(stack).items():
        try:
            found[reference] = await fleet.resolve_image(reference, pull=pull and not options.dry_run)
        except FleetRefusedError as error:
            complain(f"image {reference}: its digest is not known: {error}; its workers will try", str(error.code))
    return found


def _print_problems(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        print(printable(problem.coded.line), file=sys.stderr)


def _report(result: _Deploy) -> int:
    options, error = result.options, result.error
    if options.json:
        print_json(
            DeployDocument(
                result.project,
                options.dry_run,
                tuple(
                    ServiceChangeDocument(
                        each.service,
                        each.kind.value,
                        each.text,
                        each.differences,
                        each.outside,
                        each.strategy,
                        each.strategy_reason,
                    )
                    for each in result.diff.changes
                ),
                result.steps,
                tuple(map(_failure_document, result.failures)),
                tuple(map(_problem_document, result.problems)),
                (),
                None if error is None else str(error),
                None if error is None else str(error.code),
            )
        )
    elif error is not None:
        complain(str(error), str(error.code))
    elif not result.diff.changes:
        _print_problems(result.problems)
    elif not options.dry_run and result.is_in_order:
        print("all is ready" if result.steps else "all is ready; nothing was changed")
    if not options.json:
        print_failures(result.failures)
    return 0 if result.is_in_order else 1


def _failure_document(failure: ServiceFailure) -> ServiceFailureDocument:
    return ServiceFailureDocument(failure.service, failure.ready, failure.wanted, failure.reasons)


def _problem_document(problem: Problem) -> ProblemDocument:
    return ProblemDocument(
        problem.severity,
        problem.where,
        problem.subject,
        problem.label,
        problem.reason,
        problem.remedy,
        str(problem.code),
    )
