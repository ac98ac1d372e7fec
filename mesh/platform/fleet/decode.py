"""Reads the engine's JSON of a service into what it shall be. Pure.

`ServiceSpec` of the Docker Engine API v1.41 (https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Service).
Everybody who may use the engine writes it: nothing raises, and what has no place is named. The fields that the engine
itself adds (`Runtime`, `Isolation: default`, the platforms of an image) are none of somebody's.
"""

from collections.abc import Mapping

from mesh.platform.fleet.encode import NO_IDS
from mesh.platform.fleet.json_fields import FieldNotes, JsonFields
from mesh.platform.fleet.protocol import (
    FleetContainer,
    FleetFile,
    FleetHealthCheck,
    FleetMount,
    FleetMountKind,
    FleetPort,
    FleetResources,
    FleetRestart,
    FleetSpec,
)

_DEFAULT_DELAY = 5_000_000_000
"""Nanoseconds before a restart, if a service says nothing (`api/defaults/service.go` of swarmkit)."""
_MAX_PORT = 65_535
_MOUNT_KINDS = frozenset(each.value for each in FleetMountKind)
_OPTIONS = {
    FleetMountKind.BIND: "BindOptions",
    FleetMountKind.VOLUME: "VolumeOptions",
    FleetMountKind.TMPFS: "TmpfsOptions",
}
_CONDITIONS = ("any", "on-failure", "none")


def decode_spec(raw: object, networks: Mapping[str, str] = NO_IDS) -> tuple[FleetSpec, tuple[str, ...]]:
    """Return what a service shall be, and the fields that have no place in it, as the engine names them.

    `networks`: the name of each network by its ID; one that is not here goes by its ID.
    """
    notes = FieldNotes()
    fields = JsonFields(raw, "", notes)
    name, labels = fields.text("Name"), fields.labels("Labels")
    template = fields.fields("TaskTemplate")
    # A forced update makes other containers of the same spec.
    template.skip("ForceUpdate")
    if template.text("Runtime") not in ("", "container"):
        template.note("Runtime")
    endpoint = fields.fields("EndpointSpec")
    resources = template.fields("Resources")
    placement = template.fields("Placement")
    placement.skip("Platforms")
    log = template.fields("LogDriver")
    spec = FleetSpec(
        name=name,
        container=_container(template.fields("ContainerSpec")),
        labels=labels,
        instances=_instances(fields.fields("Mode")),
        ports=_ports(endpoint),
        limits=_resources(resources.fields("Limits"), limits=True),
        reservations=_resources(resources.fields("Reservations"), limits=False),
        constraints=placement.texts("Constraints"),
        spreads=_spreads(placement),
        most_per_worker=placement.number("MaxReplicas"),
        restart=_restart(template.fields("RestartPolicy")),
        networks=_networks(template, networks) or _networks(fields, networks),
        log_driver=log.text("Name"),
        log_options=log.labels("Options"),
    )
    for each in (log, placement, resources, endpoint, template, fields):
        each.end()
    return spec, notes.paths


def _instances(mode: JsonFields) -> int | None:
    if mode.raw.pop("Global", None) is not None:
        mode.end()
        return None
    replicated = mode.fields("Replicated")
    count = replicated.number("Replicas", 1)
    replicated.end()
    for job in mode.raw:
        mode.note(job)
    return count if not mode.raw else 0


def _ports(endpoint: JsonFields) -> tuple[FleetPort, ...]:
    if endpoint.text("Mode") != "dnsrr":
        endpoint.note("Mode")
    ports = []
    for fields in endpoint.each("Ports"):
        port, protocol = fields.number("TargetPort"), fields.text("Protocol") or "tcp"
        if fields.text("PublishMode") != "host":
            fields.note("PublishMode")
        if 0 < port <= _MAX_PORT:
            ports.append(FleetPort(port, protocol))
        else:
            fields.note("TargetPort")
        fields.end()
    return tuple(ports)


def _resources(fields: JsonFields, *, limits: bool) -> FleetResources:
    found = FleetResources(
        fields.number("NanoCPUs"), fields.number("MemoryBytes"), fields.number("Pids") if limits else 0
    )
    fields.end()
    return found


def _spreads(placement: JsonFields) -> tuple[str, ...]:
    spreads = []
    for fields in placement.each("Preferences"):
        spread = fields.fields("Spread")
        if descriptor := spread.text("SpreadDescriptor"):
            spreads.append(descriptor)
        spread.end()
        fields.end()
    return tuple(spreads)


def _restart(fields: JsonFields) -> FleetRestart:
    condition = fields.text("Condition") or "any"
    if condition not in _CONDITIONS:
        fields.note("Condition")
        condition = "any"
    found = FleetRestart(
        condition,
        fields.number("Delay", _DEFAULT_DELAY),
        fields.number("MaxAttempts"),
        fields.number("Window"),
    )
    fields.end()
    return found


def _networks(fields: JsonFields, names: Mapping[str, str]) -> tuple[str, ...]:
    found = []
    for network in fields.each("Networks"):
        target = network.text("Target")
        found.append(names.get(target, target))
        network.end()
    return tuple(found)


def _container(fields: JsonFields) -> FleetContainer:
    resolver = fields.fields("DNSConfig")
    isolation = fields.text("Isolation")
    found = FleetContainer(
        image=fields.text("Image"),
        command=fields.texts("Command"),
        args=fields.texts("Args"),
        environment=tuple(sorted(map(_variable, fields.texts("Env")), key=lambda each: each[0])),
        labels=fields.labels("Labels"),
        hostname=fields.text("Hostname"),
        directory=fields.text("Dir"),
        user=fields.text("User"),
        groups=fields.texts("Groups"),
        mounts=tuple(mount for each in fields.each("Mounts") if (mount := _mount(each)) is not None),
        files=(*_files(fields, "Secret"), *_files(fields, "Config")),
        hosts=fields.texts("Hosts"),
        nameservers=resolver.texts("Nameservers"),
        search_domains=resolver.texts("Search"),
        resolver_options=resolver.texts("Options"),
        stop_signal=fields.text("StopSignal"),
        stop_grace=fields.number("StopGracePeriod"),
        health_check=_health_check(fields),
        capabilities_added=fields.texts("CapabilityAdd"),
        capabilities_dropped=fields.texts("CapabilityDrop"),
        sysctls=fields.labels("Sysctls"),
        ulimits=_ulimits(fields),
        init=fields.flag("Init"),
        read_only=fields.flag("ReadOnly") or False,
        tty=fields.flag("TTY") or False,
        open_stdin=fields.flag("OpenStdin") or False,
        isolation="" if isolation == "default" else isolation,
    )
    resolver.end()
    fields.end()
    return found


def _variable(entry: str) -> tuple[str, str | None]:
    name, has_value, value = entry.partition("=")
    return name, value if has_value else None


def _health_check(container: JsonFields) -> FleetHealthCheck | None:
    # The documentation writes HealthCheck, the engine Healthcheck; it reads both.
    name = "HealthCheck" if container.raw.get("HealthCheck") is not None else "Healthcheck"
    if container.raw.get(name) is None:
        return None
    fields = container.fields(name)
    found = FleetHealthCheck(
        fields.texts("Test"),
        fields.number("Interval"),
        fields.number("Timeout"),
        fields.number("StartPeriod"),
        fields.number("Retries"),
    )
    fields.end()
    return found


def _files(container: JsonFields, kind: str) -> tuple[FleetFile, ...]:
    files = []
    for fields in container.each(f"{kind}s"):
        file = fields.fields("File")
        fields.skip(f"{kind}ID")
        files.append(
            FleetFile(
                fields.text(f"{kind}Name"),
                file.text("Name"),
                file.text("UID"),
                file.text("GID"),
                file.number("Mode"),
                is_secret=kind == "Secret",
            )
        )
        file.end()
        fields.end()
    return tuple(files)


def _ulimits(container: JsonFields) -> tuple[tuple[str, int, int], ...]:
    limits = []
    for fields in container.each("Ulimits"):
        limits.append((fields.text("Name"), fields.number("Soft", low=-1), fields.number("Hard", low=-1)))
        fields.end()
    return tuple(sorted(limits))


def _mount(fields: JsonFields) -> FleetMount | None:
    kind = fields.text("Type")
    if kind not in _MOUNT_KINDS:
        fields.note("Type")
        return None
    found = FleetMount(
        FleetMountKind(kind),
        fields.text("Target"),
        fields.text("Source"),
        fields.flag("ReadOnly") or False,
        _mount_options(fields, FleetMountKind(kind)),
    )
    if fields.raw.get("Consistency") == "default":
        fields.skip("Consistency")
    fields.end()
    return found


def _mount_options(mount: JsonFields, kind: FleetMountKind) -> dict[str, str]:
    fields = mount.fields(_OPTIONS[kind])
    # The value of a label or of a driver's option may be empty.
    named: dict[str, str] = {}
    if kind is FleetMountKind.BIND:
        options = {"propagation": fields.text("Propagation")}
    elif kind is FleetMountKind.TMPFS:
        size, mode = fields.number("SizeBytes"), fields.number("Mode")
        options = {"size": str(size) if size else "", "mode": f"{mode:o}" if mode else ""}
    else:
        driver = fields.fields("DriverConfig")
        options = {"nocopy": "true" if fields.flag("NoCopy") else "", "driver": driver.text("Name")}
        named = {f"driver_opts.{name}": value for name, value in driver.labels("Options").items()}
        named.update((f"labels.{name}", value) for name, value in fields.labels("Labels").items())
        driver.end()
    fields.end()
    return {name: value for name, value in options.items() if value} | named
