"""The parent process of `cluster.py`: starts an etcd and the worker processes, and sends requests to all of them."""

import asyncio
import multiprocessing
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cluster_workers import FIELD, LEASE, serve

from harness import need, running
from mesh.cluster.claim_transactions import claim_all
from mesh.cluster.claims import plan_claims
from mesh.cluster.records.decode import daemon_session
from mesh.cluster.records.encode import build_view, encode_registration, encode_verdict, own_prefixes
from mesh.cluster.registration import register_instances
from mesh.config.etcd_url import EtcdUrl
from mesh.model.service import Health, Instance
from mesh.store.etcd import EtcdClient, EtcdStore
from mesh.store.etcd.messages import TransactionResponse

WITHIN = 300.0
"""Seconds for whatever is waited for."""


@dataclass
class Child:
    """A process with some of the workers."""

    pipe: Connection
    process: BaseProcess
    offered: dict[str, list[Instance]]

    def ask(self, verb: str, *arguments: Any) -> Any:
        """See `cluster_workers.Process`."""
        self.pipe.send((verb, *arguments))
        return self.pipe.recv()


@contextmanager
def etcd(directory: Path) -> Iterator[tuple[EtcdUrl, int]]:
    """One member, with its defaults, on the disk of this machine; where it is, and its pid."""
    client, peer = (f"http://127.0.0.1:{port}" for port in _free_ports())
    command = [need("etcd", "etcd-server"), "--data-dir", str(directory), "--log-level", "error", "--logger", "zap"]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"default={peer}"]
    with running(*command) as process:
        asked = [need("curl", "curl"), "-sf", f"{client}/health"]
        deadline = time.monotonic() + 20
        while subprocess.run(asked, check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("etcd does not start")
            time.sleep(0.1)
        yield EtcdUrl((client,), "/bench/"), process.pid


def _free_ports() -> tuple[int, int]:
    with closing(socket.socket()) as one, closing(socket.socket()) as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def workers(
    url: EtcdUrl, offered: list[dict[str, list[Instance]]], bare_prefix: str, floor: int = 0
) -> Iterator[list[Child]]:
    """A process for each part. `floor`: of mass failures, in per cent; 0: every verdict is obeyed."""
    context = multiprocessing.get_context("spawn")
    children = []
    for part in offered:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, url, part, bare_prefix, floor))
        process.start()
        children.append(Child(ours, process, part))
    try:
        yield children
    finally:
        for child in children:
            if child.process.is_alive():
                child.pipe.send(None)
                child.process.join(10)
            if child.process.is_alive():
                child.process.kill()


def settle(children: list[Child], count: int) -> tuple[float, int]:
    """Wait until all workers carry so many real servers with one digest; how long that took, and all their passes."""
    began = time.monotonic()
    while True:
        rows = [row for child in children for row in child.ask("carried")]
        if {row[0] for row in rows} == {count} and _agree(children):
            return max(row[1] for row in rows) - began, sum(row[2] for row in rows)
        if time.monotonic() - began > WITHIN:
            raise RuntimeError(f"after {WITHIN:g} s the workers carry {sorted({row[0] for row in rows})}, not {count}")
        time.sleep(0.2)


def _agree(children: list[Child]) -> bool:
    return len({digest for child in children for digest in child.ask("digests")}) == 1


def last(children: list[Child], began: float, counts: list[int], verb: str, *arguments: Any) -> float:
    """Seconds until all have it; the pauses between the looks let them work."""
    while True:
        time.sleep(0.05)
        times: list[list[float]] = [child.ask(verb, *arguments) for child in children]
        if [len(each) for each in times] == counts:
            return max(max(each) for each in times if each) - began
        if time.monotonic() - began > WITHIN:
            raise RuntimeError(f"{verb} {arguments}: {[len(each) for each in times]} of {counts} after {WITHIN:g} s")


async def offer(url: EtcdUrl, placed: dict[str, list[Instance]]) -> list[str]:
    """All that these workers would have written, claims included, without any of them; their endpoints' health keys."""
    keys: list[str] = []
    for name, instances in placed.items():
        store = EtcdStore.at(url, EtcdClient(url.members), own_prefixes(name), LEASE, daemon_session)
        offered = register_instances(instances, worker=name, domain="mesh.internal", pool=FIELD.pool)
        said = dict(encode_verdict(name, (name, endpoint.id), Health.HEALTHY) for endpoint in offered.endpoints)
        await store.register(encode_registration(name, offered.services, offered.endpoints) | said)
        keys += said
        seen, _ = build_view((await store.read()).records)
        await claim_all(store, plan_claims(seen.services, seen.claims, pool=FIELD.pool, ports=FIELD.ports)[0])
        await store.close()
    return keys


async def churn(url: EtcdUrl, keys: list[str], rate: float, seconds: float) -> int:
    """Change the health of some endpoint so many times a second; how many times it was done."""
    gateway = EtcdClient(url.members)
    loop = asyncio.get_running_loop()
    began, done, healthy = loop.time(), 0, dict.fromkeys(keys, True)
    try:
        while (due := began + done / rate) < began + seconds:
            await asyncio.sleep(due - loop.time())
            key = random.choice(keys)
            healthy[key] = not healthy[key]
            _, value = encode_verdict("", ("", ""), Health.HEALTHY if healthy[key] else Health.UNHEALTHY)
            put = {"request_put": {"key": (url.prefix + key).encode(), "value": value}}
            await gateway.call("kv/txn", {"success": [put]}, TransactionResponse)
            done += 1
    finally:
        await gateway.close()
    return done
