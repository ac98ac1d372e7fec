"""The stop time of a container: its own, that of a task by its label, or the engine's default."""

import pytest

from mesh.sources.docker.inspection import STOP_GRACE_LABEL, inspection_of
from mesh.sources.docker.messages import ContainerConfig, ContainerDetails


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        (ContainerConfig(), 10),
        (ContainerConfig(stop_timeout=7), 7),
        (ContainerConfig(labels={STOP_GRACE_LABEL: "40"}), 40),
        (ContainerConfig(stop_timeout=7, labels={STOP_GRACE_LABEL: "40"}), 7),
        (ContainerConfig(labels={STOP_GRACE_LABEL: "-1"}), 10),
        (ContainerConfig(labels={STOP_GRACE_LABEL: "9" * 400}), 10),
    ],
)
def test_the_time_that_a_stop_leaves(config: ContainerConfig, seconds: float) -> None:
    assert inspection_of(ContainerDetails("c", config=config)).stop.seconds == seconds
