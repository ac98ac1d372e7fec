"""Translates a stack into what the fleet must have: one engine service for each release. Pure."""

from collections.abc import Mapping

from mesh.platform.fleet.protocol import FleetSpec
from mesh.platform.stacks.model import Desired, DesiredService, Stack, StackSite


def images_of(stack: Stack) -> Mapping[str, bool]:
    """Return the references of all images, and whether the registry must be asked though the image is present."""
    raise NotImplementedError


def translate(stack: Stack, images: Mapping[str, str], site: StackSite, instances: Mapping[str, int]) -> Desired:
    """Return what the fleet must have.

    `images` maps each reference as it is written to the one with its digest; a missing one is taken as written.
    `instances` has the numbers that are in force in the place of those of the file, by service.
    """
    raise NotImplementedError


def spec_digest(spec: FleetSpec) -> str:
    """Return 64 hexadecimal digits that differ if other containers are made; without name, count and bookkeeping."""
    raise NotImplementedError


def engine_name(project: str, service: str, release: str) -> str:
    """Return the name of an engine service: at most 63 letters, digits, hyphens and underscores."""
    raise NotImplementedError


def with_digest_in_name(service: DesiredService, project: str) -> DesiredService:
    """Return it under a name for a release whose own name is taken by another content of the same release."""
    raise NotImplementedError
