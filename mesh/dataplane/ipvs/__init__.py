"""IPVS over netlink: bytes (codec), the socket (netlink), tables (driver)."""
