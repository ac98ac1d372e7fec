"""What the acting daemon reads of releases in a rollout: records of other workers, up to a verdict."""

from typing import Any

from mesh.platform.rollouts.evidence_history import EvidenceHistory
from mesh.platform.rollouts.evidence_records import CHECK_LABELS, decode_all_evidence, encode_evidence
from mesh.platform.rollouts.judge import JudgeLimits, JudgeOutcome, judge
from tests.fuzz.choices import ByteChoices

_OWNER = "shop/web"
_RELEASE: dict[str, Any] = {
    "instances": 2,
    "exits": 1,
    "looping": 1,
    "probes": 40,
    "failed_probes": 2,
    "probe_times": {"8": 30, "9": 8},
    "endpoints": {"w1/a": [100, 4, 1, 0, None], "w1/b": [90, 4, 0, 0, 3]},
    "checks": {"release.check.cmd": [3, 1, "exit status 1"]},
}
_RECORD: dict[str, Any] = {"round": 7, "run": "a1", "services": {_OWNER: {"v1": _RELEASE, "v2": _RELEASE}}}


def check_evidence(data: bytes) -> None:
    """Records of any content are evidence or none, and lead to a verdict that can be shown."""
    choices = ByteChoices(data)
    history = EvidenceHistory()
    for turn in range(1 + choices.number(4)):
        records = {f"evidence/w{number}": choices.encoded(_RECORD) for number in range(1 + choices.number(3))}
        found = decode_all_evidence(records)
        assert decode_all_evidence({f"evidence/{each}": encode_evidence(told) for each, told in found.items()}) == found
        history.take(found, {_OWNER: ("v1", "v2")}, float(turn))
    checks = history.checks(_OWNER, "v2", CHECK_LABELS if choices.flag() else ())
    new, old = (history.evidence(_OWNER, release) for release in ("v2", "v1"))
    verdict = judge(new, old, JudgeLimits(), checks)
    assert verdict.outcome is not JudgeOutcome.GOOD or new.instances
    assert all(reason.isprintable() for reason in verdict.reasons)
