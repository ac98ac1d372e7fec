"""Logs: collected by label, sent to a store of logs, followed by people."""
