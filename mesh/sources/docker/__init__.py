"""Containers of a Docker engine as instances."""
