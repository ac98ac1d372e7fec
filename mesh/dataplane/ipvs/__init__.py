"""The IPVS data plane over netlink: messages as bytes, the socket, and tables on top of both."""
