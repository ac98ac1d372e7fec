"""Decides which labels of a container count, and which service they make it an instance of. Pure.

The author of an image writes labels too: they are on each container of the image, as if its operator had written them.
A label that the image carries with the same value is the image's. The engine cannot tell whether the container repeats
it, so it does not count, unless the operator allows labels of images.

Labels of identity (project and service) never come from an image. Compose and swarm write theirs over those of the
image; that they did is seen by others of their labels, which no image can know in advance. A manager of the swarm knows
its tasks: there, labels of swarm count only on a container that is the container of a task.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from typing_extensions import override

from mesh.config.labels.reader import LABEL_PREFIXES, SCALED_LABEL
from mesh.config.labels.values import escape_unprintable
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity

SERVICE_LABEL = "mesh.service"
"""The label by which a deployment says which service a container is an instance of: `project/service`."""

_COMPOSE, _SWARM = "com.docker.compose.", "com.docker.swarm."
_PROJECT, _SERVICE, _ONE_OFF = f"{_COMPOSE}project", f"{_COMPOSE}service", f"{_COMPOSE}oneoff"
_STACK, _SWARM_SERVICE = "com.docker.stack.namespace", f"{_SWARM}service.name"
_KEPT_PREFIXES = (*LABEL_PREFIXES, SCALED_LABEL, _COMPOSE, _SWARM, _STACK)
_OWNER_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_SHOWN = 80
"""Characters of a label that are shown."""


class LabelConstraint(NamedTuple):
    """A label that a container must have."""

    key: str
    value: str | None = None
    """Its value; None for any value."""

    @override
    def __str__(self) -> str:
        return self.key if self.value is None else f"{self.key}={self.value}"

    def is_met_by(self, labels: Mapping[str, str]) -> bool:
        """Whether one of the labels is the one that is required."""
        return self.key in labels and self.value in (None, labels[self.key])


def label_constraint(text: str) -> LabelConstraint:
    """Return the constraint that `KEY` or `KEY=VALUE` means."""
    key, separator, value = text.partition("=")
    return LabelConstraint(key, value if separator else None)


@dataclass(frozen=True, slots=True)
class LabelRules:
    """Which labels count, as the operator says."""

    image_labels: bool = False
    """Whether labels of the mesh count that a container has from its image."""
    require: tuple[LabelConstraint, ...] = ()
    """Labels that a container must have, all of them, to be an instance."""


@dataclass(frozen=True, slots=True)
class LabelOrigins:
    """Where the labels of a container come from."""

    image: Mapping[str, str] = field(default_factory=dict)
    """The labels of its image; empty if it has none, or is gone."""
    asks_manager: bool = False
    """Whether its engine is a manager of a swarm, and knows all tasks."""
    task: Mapping[str, str] | None = None
    """The labels of the task that the container is of, None if it is of none. Only with `asks_manager`."""


class ContainerIdentity(NamedTuple):
    """What the labels of a container say of the service that it is an instance of."""

    owner: tuple[str, str] | None
    """Project and service; None if no label says it."""
    one_off: bool = False
    """Whether `docker compose run` made it: it has the service's labels but is not one of its instances."""
    unconfirmed: str | None = None
    """The service of swarm that the container claims to be of, while the manager knows no such task; else None."""


def relevant_image_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels of an image that matter here: those with a prefix of the mesh, of compose or of swarm."""
    return {key: value for key, value in labels.items() if key.startswith(_KEPT_PREFIXES)}


def has_swarm_label(labels: Mapping[str, str] | None) -> bool:
    """Whether a container claims to be of a service of swarm, or of the mesh."""
    return bool(labels) and (_SWARM_SERVICE in (labels or {}) or SERVICE_LABEL in (labels or {}))


def own_labels(labels: Mapping[str, str], image: Mapping[str, str]) -> dict[str, str]:
    """The labels without those that the image has with the same value."""
    return {key: value for key, value in labels.items() if image.get(key) != value}


def counting_labels(labels: Mapping[str, str], origins: LabelOrigins, rules: LabelRules) -> dict[str, str]:
    """The labels of the mesh that count, without the one of identity."""
    counting = labels if rules.image_labels else own_labels(labels, origins.image)
    return {
        key: value
        for key, value in counting.items()
        if (key.startswith(LABEL_PREFIXES) and key != SERVICE_LABEL) or key == SCALED_LABEL
    }


def identify_container(labels: Mapping[str, str], origins: LabelOrigins) -> ContainerIdentity:
    """Say which service a container is an instance of. Raises ValueError if the label of identity is not valid."""
    own = own_labels(labels, origins.image)
    if origins.asks_manager:
        if origins.task is not None:
            # Swarm has written its labels itself, over all others; those of the stack are in the service.
            return _of_swarm(labels, origins.task.get(SERVICE_LABEL), origins.task.get(_STACK))
        claimed = own.get(SERVICE_LABEL) or own.get(_SWARM_SERVICE)
        if claimed is not None:
            return ContainerIdentity(None, unconfirmed=claimed)
    elif SERVICE_LABEL in own or (_SWARM_SERVICE in labels and _is_written_by(_SWARM, own)):
        return _of_swarm(labels, own.get(SERVICE_LABEL), own.get(_STACK))
    names = (_PROJECT, _SERVICE)
    if all(name in labels for name in names) and (
        all(name in own for name in names) or _is_written_by(_COMPOSE, own, names)
    ):
        owner = _checked(labels[_PROJECT]), _checked(labels[_SERVICE])
        return ContainerIdentity(owner, one_off=labels.get(_ONE_OFF, "").lower() == "true")
    return ContainerIdentity(None, one_off=own.get(_ONE_OFF, "").lower() == "true")


def unmet_constraints(
    labels: Mapping[str, str], origins: LabelOrigins, rules: LabelRules
) -> tuple[LabelConstraint, ...]:
    """The required labels that a container lacks."""
    counting = labels if rules.image_labels else own_labels(labels, origins.image)
    return tuple(constraint for constraint in rules.require if not constraint.is_met_by(counting))


def ignored_label_problems(
    labels: Mapping[str, str], origins: LabelOrigins, rules: LabelRules, subject: str
) -> Sequence[Problem]:
    """The problem of labels that do not count because they are the image's; none if all count."""
    if rules.image_labels:
        return ()
    ignored = sorted(key for key in labels if key.startswith(LABEL_PREFIXES) and origins.image.get(key) == labels[key])
    if not ignored:
        return ()
    some = ", ".join(escape_unprintable(key[:_SHOWN]) for key in ignored[:3])
    more = f" and {len(ignored) - 3} more" if len(ignored) > 3 else ""
    return [
        Problem(
            Code.IMAGE_LABELS_IGNORED,
            Severity.WARNING,
            subject,
            f"its image has the labels {some}{more} with the same values, so they do not count",
            "write them on the container and not into the image, or set [source.docker] image_labels to true",
        )
    ]


def _of_swarm(labels: Mapping[str, str], service: str | None, stack: str | None) -> ContainerIdentity:
    """The identity of a task: by the label of the mesh, else by the names that swarm has written."""
    if service is not None:
        project, _, name = service.partition("/")
        return ContainerIdentity((_checked(project), _checked(name)))
    return ContainerIdentity((_checked(stack or "swarm"), _checked(labels.get(_SWARM_SERVICE, ""))))


def _is_written_by(prefix: str, own: Mapping[str, str], but: Sequence[str] = ()) -> bool:
    """Whether the program with this prefix has labelled the container: a label beside `but` is not the image's."""
    return any(key.startswith(prefix) and key not in but for key in own)


def _checked(part: str) -> str:
    if not _OWNER_PART.fullmatch(part):
        raise ValueError(f"its project or service name {escape_unprintable(part)[:_SHOWN]!r} is not valid")
    return part
