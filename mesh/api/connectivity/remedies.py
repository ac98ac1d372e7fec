"""The line that opens the way for a lost packet. Pure.

The lines for the chains of Docker are those that helped on real hosts: they match connections that were translated, as
connection tracking knows them, and never an address or port as such.
"""

from dataclasses import dataclass

from mesh.api.connectivity.plan import ConnectivityTarget, TargetKind
from mesh.api.connectivity.trace import LossCause, PacketLoss
from mesh.host.firewall.advice import engine_setting
from mesh.host.firewall.facts import ENGINE_TABLE
from mesh.host.firewall.marking import DEFAULT_MARK

_USER = "DOCKER-USER"
_DIRECT_ACCESS = "start dockerd with --allow-direct-routing, or set [source.docker] endpoint_address to host"
"""The remedy where the engine drops what other hosts send to a container's own address."""


@dataclass(frozen=True, slots=True)
class RemedyContext:
    """What a remedy depends on beside the loss."""

    target: ConnectivityTarget
    data_plane: str
    """`ipvs`, `nftables` or `userspace`."""
    pool: str
    """The pool of VIPs."""


def loss_remedy(loss: PacketLoss, context: RemedyContext) -> str:
    """Return what to do about a loss, a command where there is one."""
    if loss.cause in (LossCause.RULE, LossCause.POLICY):
        return _filter_remedy(loss, context)
    target = context.target
    return {
        LossCause.NO_ENDPOINT: f"vipmesh explain {target.service}",
        LossCause.ISOLATION: "attach the client or the endpoint to a network that is not isolated",
        LossCause.ROUTING: f"sysctl -w net.ipv4.conf.{loss.iif or 'all'}.rp_filter=2",
        LossCause.HAIRPIN: f"for p in /sys/class/net/{loss.oif}/brif/*; do echo 1 > $p/hairpin_mode; done",
        LossCause.UNANSWERED: "check the packet filter of the endpoint, or of the worker that runs it",
        LossCause.UNDELIVERED: "check the packet filter of the client",
        LossCause.UNTRACED: "look at the rules of the legacy backend: `iptables-legacy-save`",
        LossCause.UNSEEN: f"check the routes of the client: `ip route get {target.address}` in its network namespace",
    }[loss.cause]


def _filter_remedy(loss: PacketLoss, context: RemedyContext) -> str:
    if loss.family in ("ip", "ip6") and loss.table in ("filter", "raw", "nat", "mangle", "security"):
        return _iptables_remedy(loss, context)
    if loss.table == ENGINE_TABLE:
        if loss.chain.startswith("raw-"):
            return _DIRECT_ACCESS
        return f"write {engine_setting(DEFAULT_MARK)} to /etc/docker/daemon.json and restart the engine"
    return f"nft insert rule {loss.family} {loss.table} {loss.chain} {_nft_match(loss, context)} accept"


def _iptables_remedy(loss: PacketLoss, context: RemedyContext) -> str:
    program = "ip6tables" if loss.family == "ip6" else "iptables"
    if loss.table == "raw":
        return _DIRECT_ACCESS
    if loss.chain == _USER:
        return f"an operator's own rule does this: `{program} -S {_USER}` shows it, and `{program} -D` removes it"
    chain = _USER if loss.passed_docker_user else loss.chain
    return f"{program} -I {chain} -m conntrack --ctstate {_state(loss, context)} {_destination(context)} -j ACCEPT"


def _state(loss: PacketLoss, context: RemedyContext) -> str:
    """Return the state of the connection for iptables-extensions(8), conntrack, at the place of the loss."""
    # What is not forwarded is not translated, IPVS translates outside of connection tracking, and a proxy not at all.
    if not loss.oif or context.data_plane == "userspace":
        return "NEW,RELATED,ESTABLISHED"
    return "RELATED,ESTABLISHED" if context.data_plane == "ipvs" else "DNAT"


def _destination(context: RemedyContext) -> str:
    """Return the match of the original destination for iptables-extensions(8), conntrack."""
    target = context.target
    if target.kind is TargetKind.VIP:
        return f"--ctorigdst {context.pool}"
    return f"-p {target.transport} --ctorigdstport {target.port}"


def _nft_match(loss: PacketLoss, context: RemedyContext) -> str:
    """Return the same match for nft(8)."""
    target = context.target
    family = "ip6" if ":" in target.address else "ip"
    states = _state(loss, context)
    state = "ct status dnat" if states == "DNAT" else f"ct state {states.lower()}"
    if target.kind is TargetKind.VIP:
        return f"{state} ct original {family} daddr {context.pool}"
    return f"{state} meta l4proto {target.transport} ct original proto-dst {target.port}"
