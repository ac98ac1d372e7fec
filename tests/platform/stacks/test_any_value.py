"""Whatever a compose file has below a key, the service is had or refused with a reason."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.problem import Severity
from mesh.platform.stacks.translate import translate
from mesh.sources.compose.keys import SERVICE_KEYS
from tests.platform.stacks.stacks import SITE, stack_of

WORDS = [
    *("", "0", "-1", "1", "80", "80-90:80-90/udp", "1.5", "64m", "1m30s", "a=b", "a:b", "/x", "data:/x:ro", "~/a:/b"),
    *("true", "false", "none", "host", "$X", "constraint:a==b", "affinity:service!=web", "availability:az==2"),
    *("reschedule:off", "node.labels.a==b", "CMD", "'", "on-failure:x", "linux/amd64", "service_started", "é\u2028"),
]
NAMES = [
    *("source", "target", "type", "published", "protocol", "read_only", "tmpfs", "bind", "volume", "size", "mode"),
    *("soft", "hard", "condition", "required", "limits", "reservations", "resources", "cpus", "memory", "pids"),
    *("placement", "constraints", "preferences", "spread", "restart_policy", "replicas", "test", "interval", "disable"),
    *("driver", "options", "web", "db", "max_replicas_per_node", "delay", "a"),
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(-9, 9), st.sampled_from(WORDS), st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda below: st.one_of(
        st.lists(below, max_size=4), st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text()), below, max_size=4)
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(sorted(SERVICE_KEYS - {"extends", "label_file", "env_file", "profiles"}))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5), st.dictionaries(st.sampled_from(["volumes", "configs"]), VALUES))
def test_a_service_is_had_or_refused_with_a_reason(keys: dict[str, object], top: dict[str, object]) -> None:
    file = {"services": {"web": {"image": "x", **keys}, "db": {"image": "y"}}, **top}
    stack = stack_of(json.dumps(file), {"X": "1"})
    names = {service.name for service in stack.services}
    errors = [problem for problem in stack.problems if problem.severity is Severity.ERROR]
    if stack.broken:
        assert errors
        return
    assert names | stack.refused == {"web", "db"}
    assert not names & stack.refused
    assert errors or not stack.refused
    assert all(str(problem).isprintable() and problem.where for problem in stack.problems)
    digests = [[each.digest for each in translate(stack, {}, SITE, {}).services] for _ in range(2)]
    assert digests[0] == digests[1]
