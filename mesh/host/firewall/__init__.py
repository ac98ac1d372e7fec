"""Lets translated connections through the firewall of this host, where that firewall leaves a place for it.

A table of our own marks the packets of connections that vipmesh has translated. A rule in the chain `DOCKER-USER`, or
the engine's setting `bridge-accept-fwmark`, accepts the mark. Everything else is reported with the line to type.
"""
