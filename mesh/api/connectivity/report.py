"""The result of a connectivity test: one row for each request, as JSON and as a table. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from mesh.api.connectivity.plan import ConnectivityPlan, ConnectivityTarget
from mesh.api.connectivity.remedies import RemedyContext, loss_remedy
from mesh.api.connectivity.trace import LossCause, PacketLoss
from mesh.model.request import RequestOutcome, RequestResult
from mesh.model.service import Transport


class RowState(StrEnum):
    """Whether a request came back. The values are stable: programs may compare them."""

    OK = "ok"
    """An answer came. For UDP, a refusal by the destination is an answer, too."""
    FAILED = "failed"
    """No answer came, or a refusal."""
    UNKNOWN = "unknown"
    """UDP: it was sent, and silence proves nothing."""
    SKIPPED = "skipped"
    """It does not count: the client is not set up for it, as the detail says."""


@dataclass(frozen=True, slots=True)
class ConnectivityRow:
    """One request of one client."""

    client: str
    """Where it was sent from: `host`, `network shop_default`, `worker w2`."""
    service: str
    """The first routing name of the service."""
    kind: str
    """`vip` or `published`."""
    destination: str
    """What was asked: `tcp://web.test:80`, `tcp://10.112.0.7:80`."""
    by: str
    """`name` or `address`."""
    state: RowState
    outcome: str
    """The outcome, such as `answered`, `no-answer`, `refused`."""
    seconds: float
    """The time until the outcome, with the lookup of a name."""
    detail: str = ""
    """What there is to add: an error, an ICMP message, the answer of the name server; empty if nothing."""
    lost_at: str | None = None
    """Where the packet was lost: a rule, a hook, an interface; None if it was not, or if it is not known."""
    lost_cause: str | None = None
    """The kind of loss, such as `rule`, `policy`, `hairpin`; None without `lost_at`."""
    guess: bool = False
    """Whether `lost_at` follows from counters, which other packets change, too."""
    remedy: str | None = None
    """The line that helps; None if the request came back."""


@dataclass(frozen=True, slots=True)
class UntestedClient:
    """A client that sent nothing."""

    client: str
    reason: str
    """Why it was not asked."""
    remedy: str | None = None
    """How it can be tested; None if it is not meant to reach VIPs."""


@dataclass(frozen=True, slots=True)
class ConnectivityReport:
    """The document of `vipmesh test --json`."""

    worker: str
    passed: int
    """Requests that came back."""
    failed: int
    """Requests that did not."""
    rows: tuple[ConnectivityRow, ...]
    """Every request, by client and then by service."""
    untested: tuple[UntestedClient, ...] = ()
    """Clients that sent nothing."""
    seconds: float = 0.0
    """The duration of the test."""
    untraced: str | None = None
    """Why packets that were lost were not traced; None if they were, or if none was lost."""

    @property
    def works(self) -> bool:
        """Whether at least one request was sent, and every request came back."""
        return self.failed == 0 and any(row.state is not RowState.SKIPPED for row in self.rows)


def make_report(
    worker: str,
    rows: Sequence[ConnectivityRow],
    untested: Sequence[UntestedClient],
    seconds: float,
    untraced: str | None = None,
) -> ConnectivityReport:
    """Return the report of these rows. `untraced`: why what was lost was not traced, None if it was."""
    states = [row.state for row in rows]
    return ConnectivityReport(
        worker,
        states.count(RowState.OK),
        states.count(RowState.FAILED),
        tuple(rows),
        tuple(untested),
        round(seconds, 3),
        untraced,
    )


def row_state(target: ConnectivityTarget, outcome: RequestOutcome) -> RowState:
    """Return whether a request came back, by what was sent and its outcome."""
    if outcome is RequestOutcome.ANSWERED:
        return RowState.OK
    if outcome is RequestOutcome.NO_NAME and target.optional:
        return RowState.SKIPPED
    if target.transport is Transport.UDP:
        if outcome is RequestOutcome.REFUSED and target.serving:
            return RowState.OK
        if outcome is RequestOutcome.NO_ANSWER and not target.replies:
            return RowState.UNKNOWN
    return RowState.FAILED


def make_row(
    client: str,
    target: ConnectivityTarget,
    result: RequestResult,
    plan: ConnectivityPlan,
    loss: PacketLoss | None = None,
    *,
    guess: bool = False,
    resolves: bool = False,
) -> ConnectivityRow:
    """Return the row of a request. `loss`: where its packets were lost; None if that is not known.

    `resolves`: whether the mesh's own name server answered this client, where its usual one did not know the name.
    """
    state = row_state(target, result.outcome)
    if result.outcome is RequestOutcome.NO_NAME and resolves:
        state = RowState.SKIPPED
    # A UDP service may stay silent, and a packet filter that rejects looks like a refusal: a drop that is seen decides.
    if loss is not None and is_drop(loss):
        state = RowState.FAILED
    # Something came back unless there was no answer at all: then only a drop that was seen can be the reason.
    came_back = loss is not None and not is_drop(loss) and result.outcome is not RequestOutcome.NO_ANSWER
    if state is not RowState.FAILED or came_back:
        loss = None
    detail, remedy = result.detail, None
    if state is RowState.FAILED:
        remedy = _remedy(client, target, result, plan, loss)
    elif state is RowState.SKIPPED and not target.optional:
        detail = f"{detail}; the mesh's name server answers there"
        remedy = _resolver_remedy(client, plan)
    lost = None if loss is None else f"{'the answer: ' if loss.reply else ''}{loss.where}"
    return ConnectivityRow(
        client=client,
        service=target.service,
        kind=target.kind,
        destination=target.destination,
        by="address" if target.name is None else "name",
        state=state,
        outcome=result.outcome,
        seconds=round(result.seconds, 6),
        detail=detail,
        lost_at=lost,
        lost_cause=None if loss is None else loss.cause,
        guess=guess and loss is not None,
        remedy=remedy,
    )


def is_drop(loss: PacketLoss) -> bool:
    """Return whether a loss is one that was seen, not only a trace that ends."""
    return loss.cause in (LossCause.RULE, LossCause.POLICY, LossCause.NO_ENDPOINT, LossCause.ISOLATION)


def _remedy(
    client: str, target: ConnectivityTarget, result: RequestResult, plan: ConnectivityPlan, loss: PacketLoss | None
) -> str:
    if result.outcome is RequestOutcome.NO_NAME:
        return _resolver_remedy(client, plan)
    if not target.serving or (loss is None and result.outcome in (RequestOutcome.REFUSED, RequestOutcome.CLOSED)):
        return f"vipmesh explain {target.service}"
    if loss is not None:
        return loss_remedy(loss, RemedyContext(target, plan.data_plane, plan.pool))
    if result.outcome is RequestOutcome.NOT_SENT:
        return f"give the client a route to {target.address}"
    return "run `sudo vipmesh test` on the worker itself: only root sees where packets are lost"


def _resolver_remedy(client: str, plan: ConnectivityPlan) -> str:
    """Return how a client is set up to ask the mesh's name server."""
    if client == "host":
        if plan.host_resolver is None:
            return "let the name server listen on port 53: [dns] listen"
        return f"set [dns] upstream, and make `nameserver {plan.host_resolver}` the only one in /etc/resolv.conf"
    if plan.resolver is None:
        return "set [dns] resolver, and let containers ask that address"
    return f'"dns": ["{plan.resolver}"] in /etc/docker/daemon.json, then `systemctl restart docker`'


def render_report(report: ConnectivityReport) -> str:
    """Return the table for people."""
    return "\n".join(_lines(report))


def _lines(report: ConnectivityReport) -> Iterator[str]:
    widths = [
        max((len(text) for text in column), default=0)
        for column in zip(*(_cells(row) for row in report.rows), strict=True)
    ]
    # Rows with the same fate follow one another, and what helps them all stands once, below the last of them.
    for _, rows in groupby(report.rows, key=lambda row: (row.client, row.lost_at, row.guess, row.remedy)):
        row: ConnectivityRow | None = None
        for row in rows:
            yield "  ".join(f"{cell:<{width}}" for cell, width in zip(_cells(row), widths, strict=True)).rstrip()
        if row is not None:
            yield from _help(row)
    for client in report.untested:
        yield f"{client.client}: not tested: {client.reason}"
        if client.remedy is not None:
            yield f"    fix:  {client.remedy}"
    if report.untraced is not None:
        yield f"lost packets were not traced: {report.untraced}"
    others = sum(row.state in (RowState.UNKNOWN, RowState.SKIPPED) for row in report.rows)
    more = f", {others} prove nothing" if others else ""
    yield f"{report.passed} requests came back, {report.failed} did not{more}  ({report.seconds:.1f} s)"


def _help(row: ConnectivityRow) -> Iterator[str]:
    """Yield where the packets of a row were lost, and the line that helps."""
    if row.lost_at is not None:
        yield f"    lost: {row.lost_at}{' (a guess, from counters)' if row.guess else ''}"
    if row.remedy is not None:
        yield f"    fix:  {row.remedy}"


def _cells(row: ConnectivityRow) -> tuple[str, str, str, str, str, str]:
    mark = {RowState.OK: "ok", RowState.FAILED: "LOST", RowState.UNKNOWN: "?", RowState.SKIPPED: "-"}[row.state]
    if row.state is RowState.FAILED and row.outcome != RequestOutcome.NO_ANSWER:
        mark = "FAILED"
    kind = "VIP" if row.kind == "vip" else "published port"
    return row.client, row.destination, kind, mark, f"{row.seconds * 1000:.1f} ms", _outcome(row)


def _outcome(row: ConnectivityRow) -> str:
    return f"{row.outcome}: {row.detail}" if row.detail else str(row.outcome)
