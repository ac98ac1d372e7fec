"""What the settings and the data plane require of the firewall of this host."""

from mesh.config.settings import Driver, Settings
from mesh.daemon.resolver import resolver_address
from mesh.host.firewall.advice import OpenedAddresses
from mesh.host.firewall.plan import FirewallSettings


def firewall_settings(settings: Settings, driver: Driver) -> FirewallSettings:
    """Return the settings of the firewall for the data plane in use: `ipvs`, `nftables` or `userspace`."""
    opened = OpenedAddresses(settings.vip_pool, settings.publish_ports, resolver_address(settings))
    return FirewallSettings(
        opened,
        settings.host_firewall,
        forwards=driver is not Driver.USERSPACE,
        # Nothing filters what this host sends to itself.
        takes_input=driver is not Driver.NFTABLES and not settings.vip_pool.is_loopback,
    )
