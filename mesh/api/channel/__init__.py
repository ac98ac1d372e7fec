"""The channel between workers: one asks another over its admin API, with mutual TLS."""
