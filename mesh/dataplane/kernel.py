"""Binding and unbinding of VIPs, as the kernel's data planes do it, with words for what goes wrong."""

import errno

from mesh.dataplane import VipInterface
from mesh.dataplane.operations import BindVip, UnbindVip
from mesh.model.codes import Code
from mesh.model.errors import CodedText


async def move_vip(interface: VipInterface, operation: BindVip | UnbindVip) -> CodedText | None:
    """Do it; why it failed, ending with the remedy, or None."""
    binds = isinstance(operation, BindVip)
    try:
        await (interface.bind if binds else interface.unbind)(operation.address)
    except OSError as error:
        failed = f"VIP {operation.address} cannot be {'bound' if binds else 'unbound'}"
        if error.errno in {errno.EPERM, errno.EACCES}:
            remedy = "run as root or with CAP_NET_ADMIN (compose: `cap_add: [NET_ADMIN]`)"
            return CodedText(f"{failed}, not permitted: {remedy}", Code.VIP_INTERFACE)
        return CodedText(f"{failed}, {error.strerror or error}: see `ip address`", Code.VIP_INTERFACE)
    return None
