"""Stacks of texts of compose files, for tests."""

from collections.abc import Mapping

from mesh.model.problem import Severity
from mesh.platform.stacks.model import Desired, DesiredService, Stack, StackService, StackSite
from mesh.platform.stacks.stack import read_stack
from mesh.platform.stacks.translate import translate
from mesh.sources.compose.environment import read_environment
from mesh.sources.compose.parse import read_compose_file
from mesh.sources.compose.references import NoComposeFiles

SITE = StackSite(("10.112.0.1",), "mesh.internal", 30)


def stack_of(text: str, env: Mapping[str, str] | None = None) -> Stack:
    """The stack of the project `shop` from one file, in the directory /srv/shop."""
    content = read_compose_file(text, "compose.yaml", env or {})
    files = NoComposeFiles()
    environments = {name: read_environment(service, files)[0] for name, service in content.services.items()}
    return read_stack(content, "shop", environments, "mesh.internal", "/srv/shop")


def service_text(below: str) -> str:
    """A file with the service `web`, of an image and of these lines, and the volume `data`."""
    lines = "".join(f"    {line}\n" for line in below.splitlines())
    return f"services:\n  web:\n    image: shop/web:1\n{lines}volumes:\n  data: {{}}\n"


def web_of(below: str) -> StackService:
    """The service `web`, which must be accepted."""
    stack = stack_of(service_text(below))
    assert [str(problem) for problem in stack.problems if problem.severity is Severity.ERROR] == []
    return stack.services[0]


def desired_of(text: str, images: Mapping[str, str] | None = None) -> Desired:
    """What the fleet must have for one file."""
    return translate(stack_of(text), images or {}, SITE, {})


def desired_web(below: str) -> DesiredService:
    """What the fleet must have for the service `web`."""
    return desired_of(service_text(below)).services[0]
