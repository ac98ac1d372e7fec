"""Fakes of the Protocols, which keep state in memory; each passes the contract tests of the real implementation."""
