"""The table of targets: one for each boundary at which the daemon takes input from others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fuzz import logs, parsers, parts
from tests.fuzz.compose_source import dense_files
from tests.fuzz.evidence import check_evidence
from tests.fuzz.limits import measured
from tests.fuzz.usage import check_usage
from tests.health.checks.fuzz.target import check as check_http_response
from tests.meshdns.fuzz.target import check as check_dns

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"

Check = Callable[[bytes], float]
"""Feeds one input, and returns the CPU seconds of the longest turn. Raises what the input should not have caused."""


@dataclass(frozen=True)
class FuzzTarget:
    """One boundary."""

    name: str
    boundary: str
    """The input, as the docs name it."""
    open: Callable[[], AbstractContextManager[Check]]
    """Starts what takes the input, until the context ends."""
    code: tuple[str, ...]
    """Prefixes of the modules in which the search looks for new code."""
    longest: int = 1500
    """The most bytes of an input."""
    own_corpus: Path | None = None
    """The directory of the kept inputs; None: that in `corpus` with the target's name."""

    @property
    def corpus(self) -> Path:
        """The directory of the kept inputs."""
        return self.own_corpus or CORPUS / self.name


@contextmanager
def _calling(check: Callable[[bytes], None], timed: bool = True) -> Iterator[Check]:
    measure = measured(check)
    yield measure if timed else lambda data: min(measure(data), 0.0)


def _parser(name: str, boundary: str, check: Callable[[bytes], None], *code: str, timed: bool = True) -> FuzzTarget:
    """Return a target that is a function; not `timed` if it never runs in the event loop's thread."""
    return FuzzTarget(name, boundary, partial(_calling, check, timed), code)


@contextmanager
def _reading_dense_files() -> Iterator[Check]:
    with dense_files() as check, _calling(check, timed=False) as timed:
        yield timed


TARGETS: Sequence[FuzzTarget] = (
    _parser("labels", "labels", parsers.check_labels, "mesh.config.labels", "mesh.cluster.re", "mesh.model.validation"),
    _parser(
        "compose", "compose files", parsers.check_compose, "mesh.sources.compose", "mesh.platform.stacks", timed=False
    ),
    _parser(
        "log_lines", "answers of other workers", parsers.check_log_lines, "mesh.api.service_logs", "mesh.platform.logs"
    ),
    FuzzTarget("compose_source", "compose files", _reading_dense_files, ("mesh.sources.compose",)),
    _parser("engine", "engine events and lists", parsers.check_engine, "mesh.sources.docker"),
    FuzzTarget(
        "engine_source",
        "engine events and lists",
        partial(parts.running, parts.engine_source),
        ("mesh.sources.docker", "mesh.util.bounded_response"),
    ),
    _parser("records", "etcd records", parsers.check_records, "mesh.cluster.records", "mesh.model.validation"),
    FuzzTarget(
        "worker", "etcd records and labels", partial(parts.running, parts.worker), ("mesh.cluster", "mesh.control")
    ),
    _parser(
        "stacks", "etcd records", parsers.check_stacks, "mesh.platform.stacks.kept", "mesh.platform.stacks.listing"
    ),
    _parser("evidence", "evidence of releases", check_evidence, "mesh.platform.rollouts.evidence"),
    _parser("usage", "usage of containers", check_usage, "mesh.platform.autoscaling"),
    _parser("etcd_messages", "etcd answers", parsers.check_etcd_messages, "mesh.store.etcd"),
    FuzzTarget("etcd_client", "etcd answers", partial(parts.running, parts.etcd_client), ("mesh.store.etcd",)),
    _parser("http_response", "probe answers", check_http_response, "mesh.health.checks.http"),
    FuzzTarget("prober", "probe answers of each kind", partial(parts.running, parts.prober), ("mesh.health",)),
    FuzzTarget(
        "dns",
        "DNS questions and answers",
        partial(_calling, check_dns),
        ("meshdns.",),
        700,
        ROOT / "tests" / "meshdns" / "fuzz" / "corpus",
    ),
    FuzzTarget("name_server", "DNS questions and answers", partial(parts.running, parts.name_server), ("meshdns.",)),
    FuzzTarget("admin_api", "admin API", partial(parts.running, parts.admin_api), ("mesh.api",)),
    _parser("channel", "answers of other workers", parsers.check_channel, "mesh.api.cluster_events"),
    FuzzTarget("peers", "the port for peers", partial(parts.running, parts.peers), ("mesh.cluster.ping",)),
    _parser("settings", "settings", parsers.check_settings, "mesh.config", timed=False),
    FuzzTarget(
        "saved_view",
        "the saved view",
        partial(parts.running, parts.saved_views),
        ("mesh.store.cached", "mesh.cluster.re"),
    ),
    _parser(
        "log_files",
        "lines of containers",
        logs.check_log_files,
        "mesh.platform.logs.json_file",
        "mesh.platform.logs.documents",
        "mesh.platform.logs.sinks",
    ),
    _parser("log_store_answers", "answers of stores of logs", logs.check_log_store_answers, "mesh.platform.logs.sinks"),
)


def find_target(name: str) -> FuzzTarget:
    """Return the target with this name. Raises LookupError."""
    found = next((target for target in TARGETS if target.name == name), None)
    if found is None:
        raise LookupError(f"no target {name}; there are {', '.join(target.name for target in TARGETS)}")
    return found
