"""A DNS server for container hosts: authoritative for one zone, forwarder for every other name, over UDP and TCP.

The package deals in names and addresses only; it knows nothing about containers or load balancing.
"""
