"""Stateful fakes of the Protocols; each passes the contract tests of the real thing."""
