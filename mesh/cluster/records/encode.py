"""Encodes the records of the store: their keys and values.

Values are JSON with a version, `"v": 1`. A reader ignores fields that it does not know, so that workers of two versions
can share a store during a rollout. A record that cannot be decoded, or that no kernel could take, is reported as a
problem, never raised as an exception: one broken record must not stop the others.

    claims/services/<name>              {"vip"}                       the VIP of a service, for good
    claims/vips/<address>               {"name"}                      the service of a VIP, so that it is unique
    claims/names/<routing name>         {"owner"}                     "moved_from" too after `vipmesh claims move`
    claims/ports/<transport>/<port>     {"name", "container_port"}
    claims/declarations/<owner>         a `Service` without a probe   the declaration in force
    claims/shares/<owner>               {"shares", "among", "by"}     of releases, given by operators
    claims/rollouts/<owner>             a `ReleaseRollout`            how far the rollout of a service is
    claims/older-names                  {"names"}                     served before `[names] allow` existed; once
    claims/idle/..., claims/clock       how long claims have not been declared (`mesh.cluster.claim_usage`)
    stacks/<project>                    {"deploys"}                   (`mesh.platform.stacks.kept_deploys`)
    workers/<worker>/services/<owner>   a `Service`, {"own_probe"}    leased
    workers/<worker>/endpoints/<id>     an `Endpoint`                 leased
    workers/<worker>/daemon             {"version", "session", "listens", "admin", "data_plane"}  leased; written last
    workers/<worker>/digest             {"digest", "told"}            leased; of its table and firewall, for operators
    health/<worker>/<id>                {"health", "run", "reason"}   leased; by the probes of its own worker
    health/<worker>/<owner>/<id>        {"health", "run", "reason"}   leased; by another prober, for a departed owner

Parts between slashes are percent-encoded where they contain a slash or another special character.

The values of probe headers are in no record. A service whose probe has headers is written with two probes. `own_probe`
names the headers without their values; the other workers do not run it. `probe` is for versions without `own_probe`,
which would run it: it has no headers, and any HTTP response is a success.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import msgspec

from mesh.cluster.records.decode import (
    MAX_REASON_LENGTH,
    DaemonRecord,
    MovedNameRecord,
    NameOwnerRecord,
    OlderNamesRecord,
    PortRecord,
    SharesRecord,
    VerdictRecord,
    VipHolderRecord,
    VipRecord,
    record_key,
)
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.model.past_event import bounded_text
from mesh.model.problem import Problem
from mesh.model.release_rollout import ReleaseRollout
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Address, Endpoint, EndpointKey, Health, Name, Service, Transport
from mesh.model.validation import MAX_TEXT
from mesh.model.view import ClusterView

VERSION = 1
MAX_CACHED_RECORDS = 4096
"""Records of each kind that are not encoded again: few of a worker's records change at a time."""
CLAIMS_PREFIX = "claims/"
"""The key prefix of all claims."""
SHARES_PREFIX = "claims/shares/"
"""The key prefix of the shares of releases. It is among the claims, which every worker may write and restores."""
ROLLOUTS_PREFIX = "claims/rollouts/"
"""The key prefix of rollouts, likewise."""


def encode_service_claim(name: Name, vip: Address) -> dict[str, bytes]:
    """The record of the VIP that a service holds."""
    return {record_key("claims", "services", name): _value(VipRecord(vip))}


def encode_vip_claim(vip: Address, name: Name) -> dict[str, bytes]:
    """The record of the service that holds a VIP."""
    return {record_key("claims", "vips", vip): _value(VipHolderRecord(name))}


def encode_name_claim(name: Name, owner: str) -> dict[str, bytes]:
    """The record of the owner of a routing name."""
    return {record_key("claims", "names", name): _value(NameOwnerRecord(owner))}


def encode_moved_name(name: Name, owner: str, former: str) -> dict[str, bytes]:
    """The record of a routing name that an operator has moved from its former owner to this one.

    It means the same as `encode_name_claim` to a reader that does not know the former owner.
    """
    return {record_key("claims", "names", name): _value(MovedNameRecord(owner, former))}


def encode_older_names(names: Iterable[Name]) -> dict[str, bytes]:
    """The record of the names that the cluster served before it knew allowed domains."""
    return {record_key("claims", "older-names"): _value(OlderNamesRecord(tuple(sorted(names))))}


def encode_port_claim(transport: Transport, port: int, name: Name, container_port: int) -> dict[str, bytes]:
    """The record of the service that a published port leads to."""
    return {record_key("claims", "ports", transport, str(port)): _value(PortRecord(name, container_port))}


def encode_shares(shares: ReleaseShares) -> dict[str, bytes]:
    """The record of the shares of the releases of a service."""
    record = SharesRecord(dict(sorted(shares.given.items())), shares.among, bounded_text(shares.by, MAX_TEXT))
    return {record_key("claims", "shares", shares.owner): _value(record)}


def encode_rollout(rollout: ReleaseRollout) -> dict[str, bytes]:
    """The record of how far the rollout of a service is."""
    return {record_key("claims", "rollouts", rollout.owner): _value(rollout)}


def encode_declaration_claim(service: Service) -> dict[str, bytes]:
    """The record of the declaration in force of a service; `service` has no probe."""
    return {record_key("claims", "declarations", service.owner): _value(service)}


def own_prefixes(worker: str) -> tuple[str, ...]:
    """The key prefixes of the leased records of one worker; only this worker writes there."""
    return record_key("workers", worker) + "/", record_key("health", worker) + "/"


def encode_registration(worker: str, services: Iterable[Service], endpoints: Iterable[Endpoint]) -> dict[str, bytes]:
    """The leased records of one worker."""
    return dict([*(_declared(worker, service) for service in services), *(_runs(worker, e) for e in endpoints)])


def encode_daemon(
    worker: str,
    version: str,
    session: str,
    listens: str | None = None,
    *,
    admin: str | None = None,
    data_plane: str | None = None,
) -> dict[str, bytes]:
    """The record of the daemon itself. `session` differs after each start; `listens` is the address of its peer
    listener (`address:port`), or None if it has none; `admin` likewise of its admin API; `data_plane` is its name, or
    None if it is not known.
    """
    record = _builtins(DaemonRecord(version, session, listens, admin, data_plane))
    for field, value in (("admin", admin), ("data_plane", data_plane)):
        if value is None:
            del record[field]  # such a record is the same as that of a version without this field
    return {record_key("workers", worker, "daemon"): msgspec.json.encode({"v": VERSION, **record})}


def encode_digest(worker: str, digest: str, told: Sequence[Problem] = ()) -> dict[str, bytes]:
    """The record with the digest of a worker's table. `told`: what other workers are to know of its firewall."""
    record: dict[str, object] = {"v": VERSION, "digest": digest}
    if told:
        record["told"] = [
            {
                "owner": each.owner,
                "reason": bounded_text(each.reason, MAX_TEXT),
                "remedy": bounded_text(each.remedy, MAX_TEXT),
            }
            for each in told
        ]
    return {record_key("workers", worker, "digest"): msgspec.json.encode(record)}


def encode_verdict(
    worker: str,
    endpoint: EndpointKey,
    health: Health,
    *,
    kept: bool = False,
    held_back: bool = False,
    run: str | None = None,
    reason: str | None = None,
) -> tuple[str, bytes]:
    """The key and value of a probe result of this worker, for an own endpoint or one of a departed worker.

    `run` is the run of the endpoint that was probed, or None if it is not known. `reason` is the answer of the probe
    that made it unhealthy, of which the beginning is written; None if it is healthy or no answer is known.

    Returns a pair instead of a mapping with one record: a worker writes thousands of them at once.
    """
    return _judged(worker, endpoint), _verdict(health, kept, held_back, run, reason)


def worker_of(key: str) -> str | None:
    """The worker of a leased record, percent-encoded; None for a claim."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind in ("workers", "health") else None


def daemon_keys(records: Mapping[str, bytes]) -> Mapping[str, str]:
    """The workers whose daemons are registered, each with its name as percent-encoded in keys."""
    found = (key.split("/")[1] for key in records if key.startswith("workers/") and key.endswith("/daemon"))
    return {unquote(worker): worker for worker in found}


def build_view(records: Mapping[str, bytes]) -> tuple[ClusterView, tuple[Problem, ...]]:
    """The view of these records, and the problems of records that could not be decoded."""
    return ViewBuilder().view(records)


@lru_cache(MAX_CACHED_RECORDS)
def _declared(worker: str, service: Service) -> tuple[str, bytes]:
    declared = _declaration(service)
    return record_key("workers", worker, "services", service.owner), msgspec.json.encode({"v": VERSION, **declared})


def _declaration(service: Service) -> dict[str, Any]:
    """Return the fields of a declaration in a record, without the values of probe headers."""
    declared = _builtins(service)
    if service.probe is not None:
        if service.probe.has_headers:
            declared["own_probe"] = _builtins(service.probe.without_header_values())
            declared["probe"] = _builtins(service.probe.without_headers())
        del declared["probe"]["withheld_headers"]  # such a record is the same as that of a version without this field
    return declared


@lru_cache(MAX_CACHED_RECORDS)
def _runs(worker: str, endpoint: Endpoint) -> tuple[str, bytes]:
    # Only a declaration has sets, whose order differs from one process to the next.
    record = msgspec.to_builtins(endpoint, order=None if endpoint.declared is None else "deterministic")
    # Such a record is the same as that of a version without these fields: it is not written again.
    for optional in ("run", "declared", "asked_weight", "release_rules"):
        if record[optional] is None:
            del record[optional]
    if not endpoint.slow_start:
        del record["slow_start"]
    if endpoint.declared is not None:
        record["declared"] = _declaration(endpoint.declared)
    return record_key("workers", worker, "endpoints", endpoint.id), msgspec.json.encode({"v": VERSION, **record})


@lru_cache(MAX_CACHED_RECORDS)
def _judged(worker: str, endpoint: EndpointKey) -> str:
    owner, id = endpoint
    return record_key("health", worker, id) if owner == worker else record_key("health", worker, owner, id)


@lru_cache(MAX_CACHED_RECORDS)
def _verdict(health: Health, kept: bool, held_back: bool, run: str | None, reason: str | None) -> bytes:
    answer = None if reason is None else bounded_text(reason, MAX_REASON_LENGTH)
    return _value(VerdictRecord(health, kept, held_back, run, answer))


def _value(record: Any) -> bytes:
    return msgspec.json.encode({"v": VERSION, **_builtins(record)})


def _builtins(record: Any) -> dict[str, Any]:
    # The order of a set differs from one process to the next: a record must not differ after a restart for that alone.
    fields: dict[str, Any] = msgspec.to_builtins(record, order="deterministic")
    return fields
