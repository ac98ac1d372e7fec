"""Rollouts: from one release of a service to the next, step by step."""
