"""The frozen values of the mesh: services and endpoints, claims, the cluster view, tables, probes, problems. Pure.

Every value is immutable, hashable where it serves as a key, and ordered where it is listed, so that the functions over
them (labels, claims, planner, diff) are deterministic.

Addresses are text in canonical form (`10.112.0.7`, `fd00::7`): the code that first reads one validates it with
`ipaddress`; all other code compares strings.
"""
