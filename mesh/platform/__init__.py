"""Stacks, releases, autoscaling and logs: the platform on top of the mesh."""
