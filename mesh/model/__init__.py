"""The frozen values of the mesh: what labels declare, what the workers share, what the kernel holds. Pure.

Every value is immutable, hashable where it serves as a key, and ordered where it is listed, so that the functions over
them (labels, claims, plan, diff) are deterministic.

Addresses are text in canonical form (`10.112.0.7`, `fd00::7`): the edge that first reads one validates it with
`ipaddress`, everything behind compares strings.
"""
