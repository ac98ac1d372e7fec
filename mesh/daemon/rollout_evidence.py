"""Makes the parts of rollouts: what tells what this worker sees of releases, and what takes their steps."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mesh.config.settings import Settings
from mesh.control.assembly import ControlLoop
from mesh.control.context import LoopContext
from mesh.control.event_recorder import ContainerExits
from mesh.daemon.open_store import evidence_opener
from mesh.dataplane import DataPlane
from mesh.health.checks import network_checks
from mesh.health.prober import CommandChecker, Prober
from mesh.host.addresses import HostAddresses
from mesh.platform.rollouts.check_targets import CheckTargets
from mesh.platform.rollouts.evidence_reporter import EvidenceReporter
from mesh.platform.rollouts.release_checker import CheckedInstance, ReleaseChecker, checked_commands
from mesh.platform.rollouts.release_evidence import ReleaseKey
from mesh.platform.rollouts.release_look import ReleaseLook, ReleaseSources
from mesh.platform.rollouts.rollout_actor import RolloutActor, RolloutSources
from mesh.platform.rollouts.rollout_watch import RolloutWatch
from mesh.store import Store


@dataclass(frozen=True, slots=True)
class EvidenceSources:
    """What the parts are made from."""

    loop: ControlLoop
    context: LoopContext
    plane: DataPlane
    prober: Prober
    commands: CommandChecker | None
    """That of the prober; None without an engine."""
    exits: ContainerExits
    """A queue that nobody else reads."""
    store: Store


@dataclass(frozen=True, slots=True)
class RolloutEvidence:
    """The parts, whose owner must run them."""

    reporter: EvidenceReporter
    checker: ReleaseChecker
    actor: RolloutActor


def rollout_evidence(settings: Settings, watch: RolloutWatch, sources: EvidenceSources) -> RolloutEvidence:
    """Make the parts. They are off while `watch` has no rollout."""
    loop, context = sources.loop, sources.context
    host, open_store = HostAddresses(settings.node_address), evidence_opener(settings)

    def checked() -> Mapping[ReleaseKey, Sequence[CheckedInstance]]:
        found = look.checked(watch.judged)
        context.commands.declare_checks(checked_commands(found))
        return found

    async def targets() -> CheckTargets:
        vips, own = context.cluster.claims().holders.keys(), await host.all_addresses()
        return CheckTargets(settings.rollouts_check_networks, settings.vip_pool, own, vips)

    def watched() -> Collection[str]:
        return watch.judged.keys()

    asked = ReleaseSources(
        loop.snapshots.service_plans,
        loop.snapshots.own_instances,
        sources.prober.history,
        sources.prober.health,
        lambda: checker.results,
    )
    look = ReleaseLook(settings.node_name, asked, sources.plane, sources.exits)
    web = cache(network_checks)  # with the first rollout, since certificates are slow to load
    checker = ReleaseChecker(checked, web, sources.commands, targets, conditions=loop.conditions)
    reporter = EvidenceReporter(settings.node_name, watched, look, open_store=open_store, conditions=loop.conditions)
    actor = RolloutActor(
        settings.node_name,
        sources.store,
        RolloutSources(loop.snapshots.observe, open_store, watch, loop.conditions),
    )
    return RolloutEvidence(reporter, checker, actor)
