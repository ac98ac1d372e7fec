"""The log: a handler that never blocks, formats, and a rate limit."""
