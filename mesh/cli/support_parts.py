"""Collects what the archive of `vipmesh support` has, and changes nothing.

A part that fails says why, and ends no other.
"""

import asyncio
import json
import os
import platform
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial

from mesh import __version__
from mesh.cli.client import AdminClient
from mesh.cli.doctor import diagnose
from mesh.cli.redaction import WITHHELD, label_secrets, redact, redact_json
from mesh.config.settings import Settings
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.vip_interface import MeshInterface
from mesh.model.errors import MeshError, SettingsError
from mesh.model.table import Table
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.limits import compose_limits
from mesh.sources.docker.engine_facts import ask_engine
from mesh.util.program import ADMIN_PATH, run_program
from mesh.util.regular_file import read_regular_file

MAX_PART_BYTES = 8 << 20
"""The most bytes of one part; the rest is left out."""
_PATIENCE = 20.0
"""Seconds that a part may take."""
_TABLES = ("vipmesh_lb", "vipmesh_count", "vipmesh", "vipmesh_forward", "vipmesh_watch", "vipmesh_hold")
"""Our tables in nftables."""


@dataclass(frozen=True, slots=True)
class SupportPart:
    """A file of the archive, before its secrets are taken out."""

    name: str
    holds: str
    """What it has, for the person who is asked."""
    collect: Callable[[], Awaitable[str]]
    """Returns the text; whatever it raises is the reason why the part is missing."""


@dataclass(frozen=True, slots=True)
class CollectedPart:
    """A file of the archive, without secrets."""

    name: str
    text: bytes
    """Empty if it is missing."""
    missing: str | None
    """Why it is missing or not whole; None if it is whole."""


def support_parts(
    options: Namespace, settings: Settings, unusable: SettingsError | None = None
) -> tuple[SupportPart, ...]:
    """Return every part of the archive, in its order. `unusable` is why the settings are not those of this host."""

    def of_daemon(path: str, accept: str) -> Callable[[], Awaitable[str]]:
        return lambda: asyncio.to_thread(lambda: AdminClient(options).ask(path, accept=accept).body)

    async def of_settings() -> str:
        if unusable is not None:
            raise unusable
        return _settings_text(settings)

    programs = _programs(settings.vip_pool.version)
    return (
        SupportPart("versions.txt", "versions of vipmesh, Python, the kernel and the programs that it uses", _versions),
        SupportPart("status.json", "services, endpoints and problems, from the daemon", of_daemon("/v1/status", _JSON)),
        SupportPart("events.json", "past events, from the daemon", of_daemon("/v1/events/past", _JSON)),
        SupportPart("metrics.txt", "metrics, from the daemon", of_daemon("/metrics", "text/plain")),
        SupportPart("settings.json", "the settings, without passwords", of_settings),
        SupportPart("doctor.json", "what `vipmesh doctor --json` prints", lambda: _diagnosis(settings)),
        SupportPart("ipvs.txt", "our virtual servers in IPVS", lambda: _ipvs(settings)),
        *programs,
    )


async def collect_part(part: SupportPart, secrets: frozenset[str]) -> CollectedPart:
    """Collect a part within its time, and take its secrets out."""
    try:
        async with asyncio.timeout(_PATIENCE):
            text = await part.collect()
    except TimeoutError:
        return CollectedPart(part.name, b"", f"it was not there within {_PATIENCE:g} s")
    except SettingsError as error:
        # Without the texts, which quote what is in the settings.
        codes = " ".join(sorted({str(line.code) for line in error.lines}))
        return CollectedPart(part.name, b"", f"the settings cannot be used [{codes}]; see `vipmesh doctor`")
    except Exception as error:  # noqa: BLE001 (a broken part must not keep the others from being written)
        return CollectedPart(part.name, b"", redact(str(error) or type(error).__name__, secrets))
    # First whole, then cut: a secret that the end cuts in two would no longer be found.
    clean = redact_json if part.name.endswith(".json") else redact
    try:
        whole = (await asyncio.to_thread(clean, text, secrets)).encode(errors="replace")
    except (ValueError, RecursionError) as error:
        return CollectedPart(part.name, b"", f"it is no JSON document ({error})")
    cut = f"its {len(whole)} bytes are cut after {MAX_PART_BYTES}" if len(whole) > MAX_PART_BYTES else None
    return CollectedPart(part.name, whole[:MAX_PART_BYTES], cut)


async def known_secrets(settings: Settings) -> frozenset[str]:
    """Return the secrets of the settings, of the environment and of the labels that this host has."""
    found = set(label_secrets(await _labels(settings)))
    if settings.store_password is not None:
        found.add(settings.store_password)
    for file in (settings.admin_token_file, settings.admin_read_token_file):
        if file is not None:
            with suppress(OSError, ValueError):
                found.add(read_regular_file(file).decode().strip())
    found |= {value for name, value in os.environ.items() if _is_secret_name(name)}
    return frozenset(found)


_JSON = "application/json"


def _is_secret_name(name: str) -> bool:
    return any(word in name.upper() for word in ("PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL"))


async def _labels(settings: Settings) -> list[Mapping[str, str]]:
    """Return the labels of containers and compose files; those that cannot be read now are left out."""
    labels: list[Mapping[str, str]] = []
    if settings.source_docker_socket is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                answer = await ask_engine(settings.source_docker_socket)
                labels += () if answer is None else answer.labels
    if settings.source_compose_files:
        limits = compose_limits(settings)
        with suppress(OSError, ValueError, MeshError):
            project = await asyncio.to_thread(load_compose_project, settings.source_compose_files, os.environ, limits)
            labels += [service.labels for service in project.content.services.values()]
    return labels


async def _versions() -> str:
    lines = [f"vipmesh {__version__}", f"Python {platform.python_version()}", " ".join(os.uname())]
    with suppress(OSError):
        lines.append(platform.freedesktop_os_release()["PRETTY_NAME"])
    for program, *arguments in (("nft", "--version"), ("ip", "-V"), ("iptables", "--version"), ("docker", "--version")):
        try:
            lines.append((await _run(program, *arguments)).strip())
        except OSError:
            lines.append(f"{program}: not installed")
    return "\n".join(lines) + "\n"


def _settings_text(settings: Settings) -> str:
    values = {each.name: getattr(settings, each.name) for each in fields(Settings)}
    if settings.store_password is not None:
        values["store_password"] = WITHHELD
    return json.dumps(values, indent=1, default=str) + "\n"


async def _diagnosis(settings: Settings) -> str:
    return json.dumps(asdict(await diagnose(settings)), indent=1) + "\n"


async def _ipvs(settings: Settings) -> str:
    interface = MeshInterface()
    plane = IpvsDataPlane(settings.vip_pool, interface)
    try:
        return _table_text(await plane.read())
    finally:
        await plane.close()
        await interface.close()


def _table_text(table: Table) -> str:
    lines = []
    for key, server in sorted(table.virtual_servers.items(), key=lambda pair: str(pair[0])):
        lines.append(
            f"{key} {server.scheduler} persistence {server.persistence} {' '.join(sorted(server.flags))}".rstrip()
        )
        lines += [
            f"  -> {real} weight {settings.weight} {settings.forwarding}"
            for real, settings in sorted(server.real_servers.items(), key=lambda pair: str(pair[0]))
        ]
    return "\n".join([*lines, f"VIPs: {' '.join(sorted(table.vips)) or 'none'}"]) + "\n"


def _programs(version: int) -> Iterator[SupportPart]:
    """Yield the listings of programs, each a part."""
    family = "ip6" if version == 6 else "ip"
    listings = [
        ("ip-address.txt", "interfaces and addresses", ("ip", "address")),
        ("ip-route.txt", "routes", ("ip", f"-{version}", "route", "show", "table", "all")),
        *(
            (f"nft-{table}.txt", f"our nftables table {table}", ("nft", "list", "table", family, table))
            for table in _TABLES
        ),
    ]
    for name, holds, (program, *arguments) in listings:
        yield SupportPart(name, holds, partial(_run, program, *arguments))


async def _run(program: str, *arguments: str) -> str:
    """Return what a program prints. Raises `OSError` if it fails."""
    done = await run_program(program, arguments, seconds=_PATIENCE, admin_path=ADMIN_PATH)
    if done.status:
        raise OSError(done.trouble.strip().splitlines()[0] if done.trouble.strip() else f"status {done.status}")
    return done.printed
