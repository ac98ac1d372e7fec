"""Stacks: what compose files and labels want, and the steps that lead there."""
