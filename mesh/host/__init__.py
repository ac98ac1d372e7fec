"""The worker's own network: the interface that holds the VIPs, its routes, its kernel settings."""
