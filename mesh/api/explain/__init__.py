"""Explanations: where a request goes, and why other endpoints get no traffic. Pure."""
