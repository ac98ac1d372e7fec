"""The parts that tell evidence, as the daemon makes them."""

import asyncio

from mesh.config.settings import parse_settings
from mesh.daemon.open_store import evidence_opener


async def test_a_single_worker_reads_what_it_has_written() -> None:
    settings = parse_settings('[store]\nurl = "sqlite:///x"', {}, hostname="w1", file="vipmesh.toml")
    opened = evidence_opener(settings)
    writer, reader = await asyncio.gather(opened(), opened())
    await writer.write("evidence/w1", b"1")
    assert await reader.read() == {"evidence/w1": b"1"}
