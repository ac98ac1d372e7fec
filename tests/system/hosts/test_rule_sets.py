"""Every rule set can be loaded, and is in force then."""

import re

import pytest

from tests.netns import private_network, run_command
from tests.system.hosts.rule_sets import (
    RULE_SETS,
    RULES,
    DockerContainer,
    DockerHost,
    DockerNetwork,
    PublishedPort,
    load_rules,
    render_rules,
)

FRONT = DockerNetwork("br-front", "172.30.1.0/24", "fd00:1::/64")
HOST = DockerHost(
    (DockerNetwork("docker0", "172.17.0.0/16"), FRONT),
    (DockerContainer(FRONT, "172.30.1.2", "fd00:1::2", (PublishedPort("tcp", 8088, 80),)),),
)


@pytest.mark.parametrize("name", sorted(RULE_SETS))
def test_a_rule_set_is_loaded(name: str) -> None:
    with private_network():
        load_rules(RULE_SETS[name].files, HOST)
        listed = run_command("nft", "list", "ruleset")
        published = re.search(r"dport 8088 .*dnat to 172\.30\.1\.2:80", listed)
        assert bool(published) == RULE_SETS[name].docker
        drops = "policy drop" in listed or "UNPUBLISHED PORT DROP" in listed
        assert drops == (name != "none"), "something that is not allowed is dropped"


@pytest.mark.parametrize("file", sorted(path.name for path in RULES.iterdir()))
def test_a_file_says_where_it_is_from_and_is_used(file: str) -> None:
    text = render_rules(file, HOST)
    assert "From: " in text.partition("\n*")[0]
    assert not re.search(r"^[^#].*<\w+>", text, re.MULTILINE), "every placeholder is replaced"
    assert any(file in (*rule_set.files, *rule_set.opening) for rule_set in RULE_SETS.values())
