"""Parses the labels of a container. Pure."""
