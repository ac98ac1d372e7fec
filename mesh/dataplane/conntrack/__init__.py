"""Connections that the kernel tracks (conntrack), as far as both kernel data planes need them."""
