"""Runs nft(8), as far as source NAT and the nftables data plane need it: load a script, list and delete a table.

It runs the program instead of using the library: the grammar is the documented one, and nothing blocks the event loop.
"""

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.util.program import ADMIN_PATH, run_program

_PATIENCE = 30.0
"""Seconds for one run; even a large ruleset takes only a few."""


class NftError(MeshError):
    """nft cannot be run, or refused a command. The text ends with the remedy."""


async def load_script(script: str) -> None:
    """Run a script as one transaction: all of it or nothing. Raises `NftError`."""
    status, _, trouble = await _run("-f", "-", given=script)
    if status:
        raise explain_refusal(trouble)


async def check_script(script: str) -> None:
    """Check whether nft would accept a script, without changing anything. Raises `NftError` if it would not."""
    status, _, trouble = await _run("-c", "-f", "-", given=script)
    if status:
        raise explain_refusal(trouble)


async def list_tables() -> str:
    """Return the names of all tables, one line each: `table ip filter`. Raises `NftError`."""
    return await _listing("list", "tables") or ""


async def list_table(family: str, table: str) -> str | None:
    """Return a table as `nft list table` prints it; None if there is no such table. Raises `NftError`."""
    return await _listing("list", "table", family, table)


async def list_table_json(family: str, table: str) -> str | None:
    """Return a table as JSON (libnftables-json(5)); None if there is no such table. Raises `NftError`."""
    return await _listing("-j", "list", "table", family, table)


async def list_table_frame_json(family: str, table: str) -> str | None:
    """Return a table as `list_table_json`, without the elements of its sets. Raises `NftError`."""
    return await _listing("-j", "-t", "list", "table", family, table)


async def _listing(*arguments: str) -> str | None:
    status, printed, trouble = await _run(*arguments)
    if status == 0:
        return printed
    if "No such file or directory" in trouble:
        return None
    raise explain_refusal(trouble)


async def delete_table(family: str, table: str) -> bool:
    """Delete a table; returns whether there was one. Raises `NftError`."""
    if await list_table(family, table) is None:
        return False
    await load_script(f"delete table {family} {table}\n")
    return True


async def _run(*arguments: str, given: str = "") -> tuple[int, str, str]:
    """Run nft; returns its exit status and what it printed to standard output and standard error. Raises `NftError`."""
    try:
        done = await run_program("nft", arguments, given=given, seconds=_PATIENCE, admin_path=ADMIN_PATH)
    except FileNotFoundError as error:
        raise NftError(Code.NFT_FAILED, "there is no program nft: `apt-get install nftables`") from error
    # An `OSError`, so it goes before the others.
    except TimeoutError as error:
        raise NftError(Code.NFT_FAILED, f"nft did not end within {_PATIENCE:g} s: look into `dmesg`") from error
    except OSError as error:
        raise NftError(Code.NFT_FAILED, f"nft cannot be run ({error.strerror}): see `which nft`") from error
    return done.status, done.printed, done.trouble


def explain_refusal(trouble: str) -> NftError:
    """Return why nft failed, from what it printed, ending with the remedy."""
    first = next((line.strip() for line in trouble.splitlines() if line.strip()), "no reason is given")
    if "Operation not permitted" in trouble:
        remedy = "run as root or with CAP_NET_ADMIN (compose: `cap_add: [NET_ADMIN]`)"
        return NftError(Code.NOT_PERMITTED, f"nft is not permitted ({first}): {remedy}")
    if "Operation not supported" in trouble or "Could not process rule" in trouble:
        remedy = "`modprobe -a nf_tables nft_ct nft_masq nft_fib_inet`"
        return NftError(Code.NFT_FAILED, f"nft refuses ({first}): {remedy}")
    return NftError(Code.NFT_FAILED, f"nft refuses: {first}")
