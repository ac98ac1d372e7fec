"""The documents for operators, made from snapshots of a worker: status, explanations, events and metrics."""
