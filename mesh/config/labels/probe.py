"""Parses the probe labels of one container into its `Probe`, and reports labels that have no effect beside others."""

from collections.abc import Iterable

from mesh.config.labels import probe_values
from mesh.config.labels import values as label_values
from mesh.config.labels.reader import HEADER_LABEL_PREFIX, TUNING_LABELS, LabelReader
from mesh.config.labels.values import LabelRefusedError
from mesh.model.codes import Code
from mesh.model.probe import Probe, ProbeKind

_HTTP = frozenset({ProbeKind.HTTP, ProbeKind.HTTPS})
_GRPC = frozenset({ProbeKind.GRPC, ProbeKind.GRPCS})
_MEANT_FOR = {
    "probe.expect_status": _HTTP,
    "probe.method": _HTTP,
    "probe.host": _HTTP | _GRPC,
    "probe.expect_body": _HTTP,
    "probe.follow_redirects": _HTTP,
    "probe.tls_verify": frozenset({ProbeKind.HTTPS, ProbeKind.GRPCS}),
    "probe.send": frozenset({ProbeKind.UDP}),
    "probe.expect_reply": frozenset({ProbeKind.UDP}),
}
"""The kinds of probe that a label has an effect on; all kinds if it is not listed."""
_DEFAULT = Probe(ProbeKind.TCP, None)


def read_probe(sheet: LabelReader, commands: bool) -> Probe | None:
    """Return the probe that the labels declare, or None if there is none or it is refused.

    `commands` says whether commands can run inside the container.
    """
    url = sheet.take("probe.url", probe_values.parse_probe_url, None)
    command = _command(sheet, commands, beside_url=url is not None)
    timeout = sheet.take("probe.timeout_seconds", label_values.parse_seconds, _DEFAULT.timeout)
    interval = sheet.take("probe.interval_seconds", label_values.parse_seconds, _DEFAULT.interval)
    kind, port, path = url or (ProbeKind.COMMAND, None, _DEFAULT.path)
    headers = _headers(sheet)
    probe = Probe(
        kind,
        port,
        path,
        initial_delay=sheet.take("probe.initial_delay_seconds", label_values.parse_delay, _DEFAULT.initial_delay),
        timeout=timeout,
        interval=interval,
        healthy_threshold=sheet.take("probe.healthy_threshold", label_values.parse_count, _DEFAULT.healthy_threshold),
        unhealthy_threshold=sheet.take(
            "probe.unhealthy_threshold", label_values.parse_count, _DEFAULT.unhealthy_threshold
        ),
        expect_status=sheet.take("probe.expect_status", probe_values.parse_statuses, _DEFAULT.expect_status),
        command=command or _DEFAULT.command,
        method=sheet.take("probe.method", probe_values.parse_method, _DEFAULT.method),
        host=sheet.take("probe.host", probe_values.parse_host, _DEFAULT.host),
        headers=headers if kind in _HTTP else (),
        expect_body=sheet.take("probe.expect_body", probe_values.parse_expected_body, _DEFAULT.expect_body),
        follow_redirects=sheet.take("probe.follow_redirects", probe_values.parse_switch, _DEFAULT.follow_redirects),
        tls_verify=sheet.take("probe.tls_verify", probe_values.parse_switch, _DEFAULT.tls_verify),
        send=sheet.take("probe.send", probe_values.parse_datagram, _DEFAULT.send),
        expect_reply=sheet.take("probe.expect_reply", probe_values.parse_datagram, _DEFAULT.expect_reply),
        startup=sheet.take("probe.startup_seconds", label_values.parse_delay, _DEFAULT.startup),
        startup_interval=_startup_interval(sheet, interval),
        floor=sheet.take("probe.floor", probe_values.parse_percentage, _DEFAULT.floor),
    )
    if url is None and not command:
        _warn_idle(sheet)
        return None
    if timeout > interval:
        name = "probe.timeout_seconds" if sheet.has("probe.timeout_seconds") else "probe.interval_seconds"
        reason = f"a probe may take {timeout:g} s, but the next is due after {interval:g} s"
        sheet.warn(Code.PROBE_LONGER_THAN_INTERVAL, name, reason, "write a timeout that is not above the interval")
    _warn_without_effect(sheet, kind)
    return _refused(sheet, probe)


def _command(sheet: LabelReader, commands: bool, *, beside_url: bool) -> str:
    command = sheet.take("probe.cmd", probe_values.parse_probe_command, "")
    if not command:
        return ""
    if sheet.has_port_labels and not commands:
        reason = "it is run by a container engine, but this endpoint has none"
        sheet.warn(Code.PROBE_COMMAND_WITHOUT_ENGINE, "probe.cmd", reason, "write a probe.url")
        return ""
    if beside_url:
        sheet.warn(Code.LABEL_WITHOUT_EFFECT, "probe.cmd", "it has no effect beside probe.url", "keep one of them")
        return ""
    return command


def _startup_interval(sheet: LabelReader, interval: float) -> float | None:
    between: float | None = sheet.take("probe.startup_interval_seconds", label_values.parse_seconds, None)
    if between is not None and between > interval:
        reason = f"{between:g} s is longer than the interval of {interval:g} s, which is used instead"
        sheet.warn(
            Code.PROBE_LONGER_THAN_INTERVAL, "probe.startup_interval_seconds", reason, "write less, or remove it"
        )
    return between


def _headers(sheet: LabelReader) -> tuple[tuple[str, str], ...]:
    """Return the headers sorted by name, because container engines do not keep the order of labels."""
    found: dict[str, tuple[str, str]] = {}
    for label in sheet.starting_with(HEADER_LABEL_PREFIX):
        name = label.removeprefix(HEADER_LABEL_PREFIX)
        try:
            probe_values.parse_header_name(name)
        except LabelRefusedError as refused:
            sheet.refuse(refused.code, label, refused.reason, refused.remedy)
            continue
        value: str | None = sheet.take(label, probe_values.parse_header_value, None)
        if name.lower() in found:
            sheet.refuse(
                Code.WRITTEN_TWICE, label, "the header is set twice, in different spellings", "keep one of them"
            )
        elif value is not None:
            found[name.lower()] = (name, value)
    return tuple(found[name] for name in sorted(found))


def _refused(sheet: LabelReader, probe: Probe) -> Probe | None:
    """Return the probe, or None if the labels contradict one another, which is reported."""
    if probe.kind is ProbeKind.UDP and not probe.send:
        if not sheet.has("probe.send"):
            remedy = r"add probe.send, such as \x00\x01 or PING, or probe with tcp:// or a command"
            sheet.refuse(
                Code.PROBE_UNUSABLE,
                "probe.url",
                "udp:// needs something to send, otherwise there is no reply",
                remedy,
            )
        return None
    if probe.expect_body and probe.method == "HEAD":
        sheet.refuse(
            Code.PROBE_REQUEST_OR_EXPECTATION,
            "probe.expect_body",
            "an answer to HEAD has no body",
            "write probe.method: GET or remove it",
        )
        return None
    return probe


def _warn_without_effect(sheet: LabelReader, kind: ProbeKind) -> None:
    what = "a command" if kind is ProbeKind.COMMAND else f"{'an' if kind in _HTTP else 'a'} {kind}:// probe"
    headers = ((label, _HTTP) for label in sheet.starting_with(HEADER_LABEL_PREFIX))
    for label, kinds in (*_MEANT_FOR.items(), *headers):
        if sheet.has(label) and kind not in kinds:
            sheet.warn(
                Code.LABEL_WITHOUT_EFFECT,
                label,
                f"it has no effect on {what}",
                f"remove it or probe with {_schemes(kinds)}",
            )


def _schemes(kinds: Iterable[ProbeKind]) -> str:
    return " or ".join(f"{kind}://" for kind in ProbeKind if kind in set(kinds))


def _warn_idle(sheet: LabelReader) -> None:
    """Warn about labels that tune a probe if there is none. A refused URL or command has been reported already."""
    if sheet.has("probe.url") or sheet.has("probe.cmd") or not sheet.has_port_labels:
        return
    for name in (*TUNING_LABELS, *sheet.starting_with(HEADER_LABEL_PREFIX)):
        if sheet.has(name):
            sheet.warn(
                Code.LABEL_WITHOUT_EFFECT, name, "it has no effect without probe.url", "add a probe.url or remove it"
            )
