"""The secrets of the settings: which files hold them, and which cross the network in clear. Pure.

Apart from the settings, which the command line reads often, while it looks for these seldom.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh.config import etcd_url, values
from mesh.config.settings import Settings
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity


@dataclass(frozen=True, slots=True)
class SettingsWithPassword(Settings):
    """Settings whose file has a password."""

    file: Path
    """The settings file."""


def secrets_in_clear(settings: Settings) -> tuple[Problem, ...]:
    """Return a problem for each secret that crosses the network without TLS; empty if none does."""
    problems = []
    if settings.store_password is not None and settings.store_url.startswith("etcd://"):
        hosts = [values.parse_url_host(member) for member in etcd_url.parse_etcd_url(settings.store_url).members]
        if not all(map(values.is_loopback, hosts)):
            problems.append(
                Problem(
                    Code.SECRET_IN_CLEAR,
                    Severity.WARNING,
                    "[store] password",
                    "it crosses the network unencrypted, since the URL is etcd://",
                    "give etcd certificates and write etcds:// in [store] url, with [store] ca",
                )
            )
    tokens = settings.admin_token_file or settings.admin_read_token_file
    for key, listen in (("tcp", settings.admin_tcp), ("listen", settings.admin_listen)):
        if tokens and listen and not listen.startswith("unix:") and settings.admin_cert is None:
            host, _ = values.parse_socket_address(listen)
            if not values.is_loopback(host):
                problems.append(
                    Problem(
                        Code.SECRET_IN_CLEAR,
                        Severity.WARNING,
                        f"[admin] {key}",
                        f"clients send their token to {listen} unencrypted",
                        "set [admin] cert and key, or listen on 127.0.0.1 and let ssh forward the port",
                    )
                )
    return tuple(problems)


def secret_files(settings: Settings) -> Mapping[Path, Problem]:
    """Return the files that hold a secret, each with the problem if every user of the host may read it."""
    files = {
        "it has the password of etcd": settings.file if isinstance(settings, SettingsWithPassword) else None,
        "it has the token that may do everything": settings.admin_token_file,
        "it has the token that may read": settings.admin_read_token_file,
        "it has the private key of the admin API": settings.admin_key or settings.admin_cert,
        "it has the private key for etcd": settings.store_key or settings.store_cert,
    }
    return {
        file: Problem(
            Code.SECRET_READABLE,
            Severity.WARNING,
            f"file {file}",
            f"{holds}, and every user of this host may read it",
            f"run `chmod o-rwx {file}`",
        )
        for holds, file in files.items()
        if file is not None
    }
