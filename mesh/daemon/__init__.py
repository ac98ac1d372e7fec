"""The composition root and the life of the process: wiring, signals, readiness, cleanup."""
