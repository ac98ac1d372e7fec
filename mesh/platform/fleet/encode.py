"""Writes what a service shall be as the engine's JSON. Pure.

`ServiceSpec` of the Docker Engine API v1.41 (https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Service).
An empty value is left out: the engine gives it back as it was written.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mesh.platform.fleet.protocol import (
    FleetContainer,
    FleetFile,
    FleetHealthCheck,
    FleetMount,
    FleetMountKind,
    FleetResources,
    FleetSpec,
)

Json = dict[str, Any]
NO_IDS: Mapping[str, str] = {}


def encode_spec(spec: FleetSpec, secrets: Mapping[str, str] = NO_IDS, configs: Mapping[str, str] = NO_IDS) -> Json:
    """Return the `ServiceSpec`. `secrets` and `configs`: the engine's ID of each by its name.

    Raises ValueError, in words, if the engine has no such secret or config, or the option of a mount is not valid.
    """
    template = _said(
        ContainerSpec=_container(spec.container, secrets, configs),
        Resources=_said(
            Limits=_resources(spec.limits), Reservations=_resources(FleetResources(*_amounts(spec.reservations)))
        ),
        Placement=_said(
            Constraints=list(spec.constraints),
            Preferences=[{"Spread": {"SpreadDescriptor": each}} for each in spec.spreads],
            MaxReplicas=spec.most_per_worker,
        ),
        Networks=[{"Target": each} for each in spec.networks],
        LogDriver=_said(Name=spec.log_driver, Options=dict(spec.log_options)),
    )
    template["RestartPolicy"] = {
        "Condition": spec.restart.condition,
        "Delay": spec.restart.delay,
        "MaxAttempts": spec.restart.attempts,
        "Window": spec.restart.window,
    }
    return {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": template,
        "Mode": encode_mode(spec.instances),
        "EndpointSpec": _said(
            Mode="dnsrr",
            Ports=[{"Protocol": each.protocol, "TargetPort": each.port, "PublishMode": "host"} for each in spec.ports],
        ),
    }


def encode_mode(instances: int | None) -> Json:
    """Return `ServiceSpec.Mode`."""
    return {"Global": {}} if instances is None else {"Replicated": {"Replicas": instances}}


def _container(container: FleetContainer, secrets: Mapping[str, str], configs: Mapping[str, str]) -> Json:
    written = _said(
        Image=container.image,
        Labels=dict(container.labels),
        Command=list(container.command),
        Args=list(container.args),
        Hostname=container.hostname,
        Env=[name if value is None else f"{name}={value}" for name, value in container.environment],
        Dir=container.directory,
        User=container.user,
        Groups=list(container.groups),
        TTY=container.tty,
        OpenStdin=container.open_stdin,
        ReadOnly=container.read_only,
        Mounts=[_mount(each) for each in container.mounts],
        StopSignal=container.stop_signal,
        StopGracePeriod=container.stop_grace,
        Hosts=list(container.hosts),
        DNSConfig=_said(
            Nameservers=list(container.nameservers),
            Search=list(container.search_domains),
            Options=list(container.resolver_options),
        ),
        Secrets=_files((each for each in container.files if each.is_secret), "Secret", secrets),
        Configs=_files((each for each in container.files if not each.is_secret), "Config", configs),
        Isolation=container.isolation,
        Sysctls=dict(container.sysctls),
        CapabilityAdd=list(container.capabilities_added),
        CapabilityDrop=list(container.capabilities_dropped),
        Ulimits=[{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in container.ulimits],
    )
    if container.init is not None:
        written["Init"] = container.init
    if container.health_check is not None:
        written["Healthcheck"] = _health_check(container.health_check)
    return written


def _health_check(check: FleetHealthCheck) -> Json:
    return {
        "Test": list(check.test),
        **_said(Interval=check.interval, Timeout=check.timeout, StartPeriod=check.start_period, Retries=check.retries),
    }


def _files(files: Iterable[FleetFile], kind: str, ids: Mapping[str, str]) -> Sequence[Json]:
    return [
        {
            "File": {"Name": each.target, "UID": each.uid, "GID": each.gid, "Mode": each.mode},
            f"{kind}ID": _id(each.name, kind, ids),
            f"{kind}Name": each.name,
        }
        for each in files
    ]


def _id(name: str, kind: str, ids: Mapping[str, str]) -> str:
    if name not in ids:
        raise ValueError(f"the engine has no {kind.lower()} {name!r}; create it with `docker {kind.lower()} create`")
    return ids[name]


def _mount(mount: FleetMount) -> Json:
    return _said(
        Type=mount.kind.value,
        Source=mount.source,
        Target=mount.target,
        ReadOnly=mount.read_only,
        **_MOUNT_OPTIONS[mount.kind](dict(mount.options), mount.target),
    )


def _bind_options(options: dict[str, str], target: str) -> Json:
    propagation = options.pop("propagation", "")
    _refuse_others(options, target)
    return {"BindOptions": _said(Propagation=propagation)}


def _volume_options(options: dict[str, str], target: str) -> Json:
    no_copy, driver = options.pop("nocopy", "false"), options.pop("driver", "")
    if no_copy not in ("true", "false"):
        raise ValueError(f"mount at {target}: nocopy is {no_copy!r}, and must be true or false")
    taken: dict[str, dict[str, str]] = {"driver_opts": {}, "labels": {}}
    for name in [*options]:
        group, _, key = name.partition(".")
        if group in taken and key:
            taken[group][key] = options.pop(name)
    _refuse_others(options, target)
    return {
        "VolumeOptions": _said(
            NoCopy=no_copy == "true",
            Labels=taken["labels"],
            DriverConfig=_said(Name=driver, Options=taken["driver_opts"]),
        )
    }


def _tmpfs_options(options: dict[str, str], target: str) -> Json:
    size, mode = options.pop("size", "0"), options.pop("mode", "0")
    _refuse_others(options, target)
    try:
        return {"TmpfsOptions": _said(SizeBytes=int(size), Mode=int(mode, 8))}
    except ValueError as error:
        raise ValueError(f"mount at {target}: size {size!r} or mode {mode!r} is no number") from error


_MOUNT_OPTIONS = {
    FleetMountKind.BIND: _bind_options,
    FleetMountKind.VOLUME: _volume_options,
    FleetMountKind.TMPFS: _tmpfs_options,
}


def _refuse_others(options: Mapping[str, str], target: str) -> None:
    if options:
        raise ValueError(f"mount at {target}: the engine has no option {min(options)!r}")


def _amounts(resources: FleetResources) -> tuple[int, int]:
    return resources.cpu_nanos, resources.memory_bytes


def _resources(resources: FleetResources) -> Json:
    return _said(NanoCPUs=resources.cpu_nanos, MemoryBytes=resources.memory_bytes, Pids=resources.pids)


def _said(**fields: object) -> Json:
    """Return the fields that are not empty."""
    return {name: value for name, value in fields.items() if value}
