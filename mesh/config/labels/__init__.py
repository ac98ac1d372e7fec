"""The labels of a container. Pure."""
