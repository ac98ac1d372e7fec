"""Binds and unbinds VIPs for the data planes in the kernel, and explains failures."""

import errno

from mesh.dataplane import VipInterface
from mesh.dataplane.operations import BindVip, UnbindVip
from mesh.model.codes import Code
from mesh.model.errors import CodedText


async def move_vip(interface: VipInterface, operation: BindVip | UnbindVip) -> CodedText | None:
    """Bind or unbind a VIP; returns why it failed, ending with the remedy, or None if it succeeded."""
    binds = isinstance(operation, BindVip)
    try:
        if binds:
            await interface.bind(operation.address)
        else:
            await interface.unbind(operation.address)
    except OSError as error:
        failed = f"VIP {operation.address} cannot be {'bound' if binds else 'unbound'}"
        if error.errno in {errno.EPERM, errno.EACCES}:
            remedy = "run as root or with CAP_NET_ADMIN (compose: `cap_add: [NET_ADMIN]`)"
            return CodedText(f"{failed}, not permitted: {remedy}", Code.VIP_INTERFACE)
        return CodedText(f"{failed}, {error.strerror or error}: see `ip address`", Code.VIP_INTERFACE)
    return None
