"""Reads what a container of a service is made of: process, environment, health check, limits of the kernel. Pure."""

import re
import shlex
from collections.abc import Mapping

from mesh.config.labels.values import quote_value
from mesh.platform.fleet.protocol import FleetContainer, FleetFile, FleetHealthCheck, FleetMount
from mesh.platform.stacks.values import (
    PlainValue,
    StackKeys,
    StackValueError,
    parse_duration,
    parse_flag,
    parse_pairs,
    parse_text,
    parse_texts,
    parse_whole,
)

_SIGNAL = re.compile(r"[A-Za-z0-9+-]{1,20}", re.ASCII)


def read_container(
    keys: StackKeys,
    environment: Mapping[str, str],
    labels: Mapping[str, str],
    mounts: tuple[FleetMount, ...],
    files: tuple[FleetFile, ...],
) -> FleetContainer:
    """Return the container as the file says."""
    return FleetContainer(
        image=keys.take("image", parse_text, ""),
        command=keys.take("entrypoint", _command, ()),
        args=keys.take("command", _command, ()),
        environment=tuple(sorted(environment.items())),
        labels=dict(sorted(labels.items())),
        hostname=keys.take("hostname", parse_text, ""),
        directory=keys.take("working_dir", parse_text, ""),
        user=keys.take("user", parse_text, ""),
        groups=keys.take("group_add", parse_texts, ()),
        mounts=mounts,
        files=files,
        hosts=keys.take("extra_hosts", _hosts, ()),
        nameservers=keys.take("dns", parse_texts, ()),
        search_domains=keys.take("dns_search", parse_texts, ()),
        resolver_options=keys.take("dns_opt", parse_texts, ()),
        stop_signal=keys.take("stop_signal", _signal, ""),
        stop_grace=keys.take("stop_grace_period", parse_duration, 0),
        health_check=_health_check(keys),
        capabilities_added=keys.take("cap_add", _sorted_texts, ()),
        capabilities_dropped=keys.take("cap_drop", _sorted_texts, ()),
        sysctls=keys.take("sysctls", parse_pairs, {}),
        ulimits=keys.take("ulimits", _ulimits, ()),
        init=keys.take("init", parse_flag, None),
        read_only=keys.take("read_only", parse_flag, False),
        tty=keys.take("tty", parse_flag, False),
        open_stdin=keys.take("stdin_open", parse_flag, False),
        isolation=keys.take("isolation", parse_text, ""),
    )


def _command(value: PlainValue) -> tuple[str, ...]:
    """Return the words of a command: a list as it is, a text as a shell splits it."""
    if isinstance(value, list):
        return tuple("" if item is None else parse_text(item) for item in value)
    try:
        return tuple(shlex.split(parse_text(value)))
    except ValueError:
        raise StackValueError("a quote has no end", "close it, or write a list of words") from None


def _sorted_texts(value: PlainValue) -> tuple[str, ...]:
    return tuple(sorted(set(parse_texts(value))))


def _signal(value: PlainValue) -> str:
    text = parse_text(value)
    if not _SIGNAL.fullmatch(text):
        raise StackValueError(f"{quote_value(text)} is not a signal", "write a name such as SIGTERM")
    return text


def _hosts(value: PlainValue) -> tuple[str, ...]:
    """Return the lines of /etc/hosts: `ADDRESS NAME`."""
    lines: list[str] = []
    if isinstance(value, dict):
        for name, addresses in value.items():
            lines += [f"{_host_address(address)} {name}" for address in parse_texts(addresses)]
        return tuple(lines)
    for text in parse_texts(value):
        match = re.fullmatch(r"([^=:\s]+)\s*[=:]\s*(\S+)", text)
        if match is None:
            raise StackValueError(f"{quote_value(text)} is not NAME=ADDRESS", 'write "NAME=ADDRESS"')
        lines.append(f"{_host_address(match[2])} {match[1]}")
    return tuple(lines)


def _host_address(text: str) -> str:
    if text == "host-gateway":
        raise StackValueError("the engine's services cannot fill in host-gateway", "write an address or a routing name")
    return text.removeprefix("[").removesuffix("]")


def _health_check(keys: StackKeys) -> FleetHealthCheck | None:
    if not keys.has("healthcheck"):
        return None
    if keys.take("healthcheck.disable", parse_flag, False):
        return FleetHealthCheck(("NONE",))
    check = FleetHealthCheck(
        keys.take("healthcheck.test", _health_test, ()),
        keys.take("healthcheck.interval", parse_duration, 0),
        keys.take("healthcheck.timeout", parse_duration, 0),
        keys.take("healthcheck.start_period", parse_duration, 0),
        keys.take("healthcheck.retries", parse_whole, 0),
    )
    return None if check == FleetHealthCheck(()) else check


def _health_test(value: PlainValue) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ("CMD-SHELL", parse_text(value))
    words = tuple(parse_text(item) for item in value)
    if not words or words[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise StackValueError("the list does not begin with CMD, CMD-SHELL or NONE", "write CMD in front")
    return words


def _ulimits(value: PlainValue) -> tuple[tuple[str, int, int], ...]:
    if not isinstance(value, dict):
        raise StackValueError("it is not a mapping", "write NAME: LIMIT below it")
    limits: list[tuple[str, int, int]] = []
    for name, below in sorted(value.items()):
        if isinstance(below, dict):
            soft, hard = (parse_whole(below.get(key) or "", -1) for key in ("soft", "hard"))
        else:
            soft = hard = parse_whole(below, -1)
        limits.append((name, soft, hard))
    return tuple(limits)
