"""The data plane of a kernel without IPVS but with nftables: a verdict map and one small chain per virtual server.

    ip daddr . protocol . port  --services-->  chain of the virtual server  --numgen or jhash-->  dnat to a real server

What a packet costs does not grow with the number of virtual servers: one lookup in a map, one in a chain of its own.
All of it is in one table, `vipmesh_lb`; other tables of the host are neither read nor touched.
"""
