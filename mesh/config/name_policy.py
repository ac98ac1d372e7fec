"""Decides which routing names a service may have, whatever its labels say. Pure.

A label is written by the author of a container, who may be anybody; a name that the mesh serves hides the name of the
same spelling in the rest of the world, for every client of every worker. So only names below domains that the operator
allows are served. A name that the cluster already served when its first worker of this version started keeps being
served, so that an upgrade takes no name away; it is reported as a warning.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mesh.config.settings import Settings
from mesh.model.service import Name

REVERSE_DOMAINS = ("in-addr.arpa", "ip6.arpa")
"""The domains of reverse zones (RFC 1035 section 3.5, RFC 3596 section 2.5)."""

MAX_OLDER_NAMES = 4096
"""The number of names that are remembered as older than this version; their record stays far below what a store takes
in one value."""


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """The domains in which names are served. The default allows every name: nothing was configured."""

    domain: Name = ""
    """The cluster domain; its names are always allowed, except the name server's own."""
    allow: tuple[Name, ...] | None = None
    """The other domains that are allowed, without final dots; None for all."""
    forwarded: Collection[Name] = ()
    """The domains of `[dns.forward]`: their names are answered by others."""

    def refusal(self, name: Name) -> tuple[str, str] | None:
        """The reason against a name and the remedy, in words; None if the name is allowed.

        `name` is a full name in lower case without a final dot.
        """
        if self.allow is None:
            return None
        if any(is_at_or_below(name, reverse) for reverse in REVERSE_DOMAINS):
            return f"the name {name} is in a reverse zone, which belongs to addresses", "give it another name"
        for domain in self.forwarded:
            if is_at_or_below(name, domain):
                reason = f"the name {name} is in the domain {domain}, whose names [dns.forward] leaves to other servers"
                return reason, f'give it another name, or take "{domain}" out of [dns.forward]'
        if name in self._server_names():
            return f"the name {name} is the name server's own", "give it another name"
        if not any(is_at_or_below(name, domain) for domain in (self.domain, *self.allow)):
            return f"the name {name} is outside the domains of [names] allow", self._line_to_add(name)
        return None

    def _server_names(self) -> tuple[Name, ...]:
        """The names in the SOA and NS records of the cluster domain, and the domain itself."""
        return self.domain, f"ns.{self.domain}", f"hostmaster.{self.domain}"

    def _line_to_add(self, name: Name) -> str:
        """The setting that allows the name: its parent domain, or itself where the parent is a whole top level."""
        parent = name.partition(".")[2]
        added = parent if "." in parent else name
        shown = ", ".join(f'"{domain}"' for domain in (*(self.allow or ()), added))
        return f"write [names] allow = [{shown}] on all workers, or give it a name in {self.domain}"


def name_policy(settings: Settings) -> NamePolicy:
    """Which routing names services may have by these settings."""
    return NamePolicy(settings.dns_domain, settings.names_allow, tuple(settings.dns_forward))


EVERY_NAME = NamePolicy()
"""The policy that allows every name."""


def is_at_or_below(name: Name, domain: Name) -> bool:
    """Whether the name is the domain itself or a name in it, by whole labels."""
    return name == domain or name.endswith(f".{domain}")


def older_names(owned: Iterable[Name], policy: NamePolicy) -> tuple[Name, ...]:
    """The names that are served although the policy refuses them, to be recorded once: at most `MAX_OLDER_NAMES`, in
    alphabetical order.
    """
    return tuple(sorted(name for name in owned if policy.refusal(name) is not None)[:MAX_OLDER_NAMES])
