"""The metrics of a worker in Prometheus' text format. Pure."""
