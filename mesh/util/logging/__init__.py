"""Logging: a handler that never blocks, line formats, and a rate limit."""
