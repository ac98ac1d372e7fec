"""What is read of the usage of containers: cgroup files of this host, and usage records of other workers."""

from typing import Any

from mesh.model.auto_scaling import AutoScaling, ScalingBand
from mesh.platform.autoscaling.cgroup_files import (
    locate_cgroup,
    parse_limits_v1,
    parse_limits_v2,
    parse_mounts,
    parse_usage_v1,
    parse_usage_v2,
)
from mesh.platform.autoscaling.model import ScalingClock, ScalingState, ScalingSubject
from mesh.platform.autoscaling.policy import decide
from mesh.platform.autoscaling.usage_history import ScalingBase, UsageHistory
from mesh.platform.autoscaling.usage_records import decode_usages, encode_usage
from tests.fuzz.choices import ByteChoices
from tests.platform.autoscaling.cgroup_trees import CONTAINER, tree_files, tree_names

_OWNER = "shop/web"
_RECORD: dict[str, Any] = {
    "round": 7,
    "run": "a1",
    "memory": 1 << 33,
    "services": {_OWNER: [["c1", 900, 1 << 28, 10, False, 1000, 1 << 29, 5, 1000], ["c2", None, None, 0, True]]},
}
_POLICIES = (
    AutoScaling(ScalingBand(70, 30), ScalingBand(90, 20), max_connections=100, max_connection_rate=10),
    AutoScaling(target_cpu=50),
)


def check_usage(data: bytes) -> None:
    """Files of any content are a usage or none, and records of any content lead to a decision within the bounds."""
    choices = ByteChoices(data)
    files = tree_files(choices.pick(tree_names()))
    changed = {path: choices.text() if choices.flag() else text for path, text in files.items()}
    texts = list(changed.values())
    found = locate_cgroup(CONTAINER, changed["proc/4242/cgroup"], parse_mounts(changed["proc/self/mountinfo"]))
    assert found is None or (CONTAINER in found.cpu and ".." not in found.cpu.split("/"))
    contents = [choices.pick(texts).encode("utf-8", "replace") for _ in range(4)]
    for usage in (parse_usage_v1(*contents), parse_usage_v2(*contents[:3])):
        assert usage is None or usage.cpu_ns >= 0
    for limits in (parse_limits_v1(*contents[:3]), parse_limits_v2(*contents[:2])):
        assert limits.cpu is None or limits.cpu > 0
    _check_records(choices)


def _check_records(choices: ByteChoices) -> None:
    history, now = UsageHistory(), 1000.0
    for turn in range(1 + choices.number(4)):
        now = 1000.0 + 10 * turn
        records = {f"usage/w{number}": choices.encoded(_RECORD) for number in range(1 + choices.number(3))}
        usages = decode_usages(records)
        assert decode_usages({f"usage/{each}": encode_usage(usage) for each, usage in usages.items()}) == usages
        history.take(usages, {_OWNER: ScalingBase()}, now)
    count = 1 + choices.number(12)
    for policy in _POLICIES:
        state, clock = ScalingState(count, added_at=0.0), ScalingClock(now, now)
        decision, _ = decide(policy, ScalingSubject("web", count), history.samples(_OWNER), state, clock)
        assert 1 <= decision.wanted <= max(10, count)
        assert decision.line.isprintable()
