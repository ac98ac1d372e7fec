"""Parses the text of a compose file into its services with their labels and endpoints, each with its line. No I/O.

It reads only what the mesh needs: `name:`, and of every service `labels` (map and list form) and `x-endpoints`, the
addresses of instances that no container engine reports. Everything else is ignored; `extends`, `include` and
`label_file` are reported with a warning. A file without `services:` is read in the old form, with services at the top
level.

There are two kinds of errors. A wrong label, endpoint or service is left out, and the rest is used. A file that compose
itself would refuse as a whole (not YAML, a duplicate key, no services) is `broken`: what is missing from it must not be
taken as removed.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

import yaml

from mesh.config.labels.reader import LABEL_PREFIXES, is_secret_label
from mesh.config.labels.values import LabelRefusedError, escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.interpolate import ExpansionError, InterpolationError, interpolate
from mesh.sources.compose.model import (
    DEFAULT_LIMITS,
    ComposeEndpoint,
    ComposeFile,
    ComposeLimits,
    ComposeService,
    parse_endpoint,
)
from mesh.sources.compose.yaml_nodes import (
    YamlEntry,
    YamlError,
    YamlWalker,
    find_duplicate_keys,
    line_of,
    load_graph,
    scalar_text,
)

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_SERVICE_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
_TOP_LEVEL = frozenset({"name", "version", "networks", "volumes", "configs", "secrets", "include", "models"})
_OLD_FORM_SIGNS = frozenset({"image", "build", "extends", "labels", "x-endpoints"})
_UNSET_SHOWN = 10
"""The most unset variables of one text that are named; the rest is counted."""
_NOT_FOLLOWED = {
    "extends": "write the labels and x-endpoints into this service",
    "label_file": "write its labels under labels:",
}


def read_compose_file(
    text: str, filename: str, env: Mapping[str, str], limits: ComposeLimits = DEFAULT_LIMITS
) -> ComposeFile:
    """Read one file. `filename` only names it in messages, `env` provides the variables. Raises nothing."""
    reader = _ComposeReader(filename, env, limits)
    try:
        return reader.read(load_graph(text, limits))
    except YamlError as error:
        where = f"{filename}:{error.line}" + (f":{error.column}" if error.column else "")
        problem = Problem(error.code, Severity.ERROR, "the file", error.reason, error.remedy, where=where)
        return ComposeFile(None, {}, (*reader.problems.kept(filename), problem), broken=True)


class _FileProblems:
    """Keeps a bounded number of the problems of one file: errors before warnings, and the count of the rest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found = 0
        self._of: dict[Severity, list[tuple[int, Problem]]] = {}
        """The first problems of each severity, each with its number."""

    def add(self, problem: Problem) -> None:
        """Take the next problem."""
        self._found += 1
        kept = self._of.setdefault(problem.severity, [])
        if len(kept) < self._most:
            kept.append((self._found, problem))

    def kept(self, filename: str) -> tuple[Problem, ...]:
        """Return the problems that are kept, in the order in which they were found, and one that counts the rest."""
        errors = self._of.get(Severity.ERROR, [])
        others = [each for severity, found in self._of.items() if severity is not Severity.ERROR for each in found]
        chosen = sorted([*errors, *sorted(others, key=_number)[: self._most - len(errors)]], key=_number)
        kept = tuple(problem for _, problem in chosen)
        left = self._found - len(kept)
        if not left:
            return kept
        rest = Problem(
            Code.PROBLEMS_NOT_SHOWN,
            Severity.ERROR if len(errors) == self._most else Severity.WARNING,
            "the file",
            f"it has {left} more problems, which are not shown",
            "correct those that are shown, or raise [source.compose] problems",
            where=filename,
        )
        return (*kept, rest)


def _number(numbered: tuple[int, Problem]) -> int:
    return numbered[0]


class _ComposeReader:
    """Reads one graph of YAML nodes and collects its problems."""

    def __init__(self, filename: str, env: Mapping[str, str], limits: ComposeLimits) -> None:
        self.problems = _FileProblems(limits.problems)
        self._filename = filename
        self._env = env
        self._walk = YamlWalker(limits)
        self._limits = limits
        self._characters = limits.characters
        """How many characters of texts may still be read."""

    def read(self, root: yaml.Node | None) -> ComposeFile:
        if root is None:
            raise YamlError(Code.COMPOSE_STRUCTURE, 1, 0, "it is empty", "write services: and below it the services")
        if not isinstance(root, yaml.MappingNode):
            raise YamlError(
                Code.COMPOSE_STRUCTURE,
                line_of(root),
                0,
                "it is not a mapping",
                "write services: and below it the services",
            )
        broken = False
        # Compose refuses such a file, and a YAML parser would silently drop one of the two values.
        for twice in find_duplicate_keys(root):
            broken = True
            reason = f"the key {quote_value(twice.key)} is on line {twice.first} and again on line {twice.second}"
            self._error(Code.WRITTEN_TWICE, twice.second, "the file", reason, "keep one of them")
        top = self._walk.entries(root)
        if "include" in top:
            self._warn(
                Code.COMPOSE_NOT_FOLLOWED,
                top["include"].line,
                "include",
                "it is not followed",
                "name the included files as well",
            )
        project = self._project(top["name"]) if "name" in top else None
        services = {
            name: service
            for name, entry in self._services(root, top).items()
            if (service := self._service(name, entry)) is not None
        }
        return ComposeFile(project, services, self.problems.kept(self._filename), broken)

    def _project(self, entry: YamlEntry) -> str | None:
        text = self._scalar(entry, "name", "write a project name such as demo")
        if text is not None and not _PROJECT.fullmatch(text):
            remedy = "write lower case letters, digits, hyphens and underscores"
            self._error(
                Code.COMPOSE_STRUCTURE, entry.line, "name", f"{quote_value(text)} is not a project name", remedy
            )
            return None
        return text

    def _services(self, root: yaml.Node, top: Mapping[str, YamlEntry]) -> dict[str, YamlEntry]:
        if "services" in top:
            node = top["services"].node
            if not isinstance(node, yaml.MappingNode):
                remedy = "indent the services below it, or write services: {} for none"
                raise YamlError(Code.COMPOSE_STRUCTURE, top["services"].line, 0, "services is not a mapping", remedy)
            return {name: entry for name, entry in self._walk.entries(node).items() if not name.startswith("x-")}
        services = {}
        for name, entry in top.items():
            if name in _TOP_LEVEL or name.startswith("x-"):
                continue
            if isinstance(entry.node, yaml.MappingNode) and _OLD_FORM_SIGNS & self._walk.entries(entry.node).keys():
                services[name] = entry
            else:
                self._warn(
                    Code.COMPOSE_STRUCTURE,
                    entry.line,
                    f"key {escape_unprintable(name)}",
                    "it is not a service",
                    "write services: if that is meant",
                )
        if not services:
            raise YamlError(
                Code.COMPOSE_STRUCTURE,
                line_of(root),
                0,
                "it has no services",
                "write services: and below it the services",
            )
        return services

    def _service(self, name: str, entry: YamlEntry) -> ComposeService | None:
        subject = f"service {escape_unprintable(name)}"
        if not isinstance(entry.node, yaml.MappingNode):
            self._error(
                Code.COMPOSE_STRUCTURE,
                entry.line,
                subject,
                "it is not a mapping",
                "indent image:, labels: and so on below it",
            )
            return None
        if not _SERVICE_NAME.fullmatch(name):
            remedy = "write letters, digits, dots, hyphens and underscores"
            self._error(
                Code.COMPOSE_STRUCTURE, entry.line, subject, f"{quote_value(name)} is not the name of a service", remedy
            )
            return None
        keys = self._walk.entries(entry.node)
        for key, remedy in _NOT_FOLLOWED.items():
            if key in keys:
                self._warn(Code.COMPOSE_NOT_FOLLOWED, keys[key].line, f"{subject}, {key}", "it is not followed", remedy)
        labels, lines = self._labels(subject, keys.get("labels"))
        where = {key: self._where(line) for key, line in lines.items()}
        endpoints = self._endpoints(f"{subject}, x-endpoints", keys["x-endpoints"]) if "x-endpoints" in keys else None
        return ComposeService(
            name, self._where(entry.line), MappingProxyType(labels), MappingProxyType(where), endpoints
        )

    def _labels(self, subject: str, entry: YamlEntry | None) -> tuple[dict[str, str], dict[str, int]]:
        if entry is None:
            return {}, {}
        self._warn_tag(entry, f"{subject}, labels")
        if _is_null(entry.node):
            return {}, {}
        if isinstance(entry.node, yaml.MappingNode):
            return self._label_map(subject, entry.node)
        if isinstance(entry.node, yaml.SequenceNode):
            return self._label_list(subject, entry.node)
        self._error(
            Code.COMPOSE_STRUCTURE,
            entry.line,
            f"{subject}, labels",
            "it is neither a mapping nor a list",
            "write KEY: VALUE below it",
        )
        return {}, {}

    def _label_map(self, subject: str, node: yaml.MappingNode) -> tuple[dict[str, str], dict[str, int]]:
        labels, lines = {}, {}
        for key, entry in self._walk.entries(node).items():
            about = f"{subject}, label {escape_unprintable(key)}"
            value = self._scalar(entry, about, "write one text, in quotes if it has brackets", key)
            if value is not None:
                labels[key], lines[key] = value, entry.line
        return labels, lines

    def _label_list(self, subject: str, node: yaml.SequenceNode) -> tuple[dict[str, str], dict[str, int]]:
        labels: dict[str, str] = {}
        lines: dict[str, int] = {}
        for item in self._walk.items(node):
            text = self._scalar(YamlEntry(line_of(item), item), f"{subject}, labels", 'write "KEY=VALUE"')
            if text is None:
                continue
            key, _, value = text.partition("=")
            if key in lines:
                reason = f"it is on line {lines[key]} and again on line {line_of(item)}"
                self._error(
                    Code.WRITTEN_TWICE,
                    line_of(item),
                    f"{subject}, label {escape_unprintable(key)}",
                    reason,
                    "keep one of them",
                    label=key,
                )
                labels.pop(key, None)
            else:
                labels[key], lines[key] = value, line_of(item)
        return labels, lines

    def _endpoints(self, subject: str, entry: YamlEntry) -> tuple[ComposeEndpoint, ...]:
        self._warn_tag(entry, subject)
        if _is_null(entry.node):
            return ()
        example = "write ADDRESS, ADDRESS:PORT or [IPV6]:PORT, in quotes"
        if not isinstance(entry.node, yaml.SequenceNode):
            self._error(
                Code.COMPOSE_STRUCTURE, entry.line, subject, "it is not a list", f'{example}: ["127.0.0.11:18080"]'
            )
            return ()
        endpoints: dict[str, ComposeEndpoint] = {}
        for item in self._walk.items(entry.node):
            text = self._scalar(YamlEntry(line_of(item), item), subject, example)
            if text is None:
                continue
            try:
                endpoint = ComposeEndpoint(*parse_endpoint(text), self._where(line_of(item)))
            except LabelRefusedError as refused:
                self._error(refused.code, line_of(item), subject, refused.reason, refused.remedy)
                continue
            if endpoints.setdefault(str(endpoint), endpoint) is not endpoint:
                self._error(Code.WRITTEN_TWICE, line_of(item), subject, f"{endpoint} is listed twice", "write it once")
        return tuple(endpoints.values())

    def _scalar(self, entry: YamlEntry, subject: str, remedy: str, label: str | None = None) -> str | None:
        """Return the node as text with its variables replaced; if that is impossible, add a problem and return None."""
        line, node = entry.line, entry.node
        if not isinstance(node, yaml.ScalarNode):
            self._error(Code.COMPOSE_STRUCTURE, line, subject, "the value is not a single text", remedy, label=label)
            return None
        self._spend(len(node.value), line)  # an alias is the same long text again and again
        text = scalar_text(node)
        if text.lower() != node.value.lower() and not _is_null(node) and (label or "").startswith(LABEL_PREFIXES):
            if is_secret_label(label or ""):
                reason, remedy = "without quotes the value is a number and becomes another text", "put it in quotes"
            else:
                reason = f"without quotes {escape_unprintable(node.value)} is a number and becomes {text}"
                remedy = f"write {quote_value(node.value)} with the quotes"
            self._warn(Code.COMPOSE_VALUE_CHANGED_BY_YAML, line, subject, reason, remedy, label=label)
        try:
            text, unset = interpolate(text, self._env, self._characters)
        except ExpansionError:
            raise self._too_long(line) from None
        except InterpolationError as error:
            self._error(error.code, line, subject, error.reason, error.remedy, label=label)
            return None
        self._spend(max(0, len(text) - len(node.value)), line)
        for name in map(escape_unprintable, unset[:_UNSET_SHOWN]):
            reason = f"variable {name} is not set and counts as empty"
            self._warn(Code.COMPOSE_VARIABLE, line, subject, reason, f"set {name}", label=label)
        if len(unset) > _UNSET_SHOWN:
            reason = f"{len(unset) - _UNSET_SHOWN} more variables are not set and count as empty"
            self._warn(Code.COMPOSE_VARIABLE, line, subject, reason, "set them", label=label)
        return text

    def _spend(self, characters: int, line: int) -> None:
        self._characters -= characters
        if self._characters < 0:
            raise self._too_long(line)

    def _too_long(self, line: int) -> YamlError:
        return YamlError(
            Code.COMPOSE_NOT_YAML,
            line,
            0,
            f"its values have more than {self._limits.characters} characters with aliases and variables replaced",
            "write shorter values, or raise [source.compose] file_bytes",
        )

    def _warn_tag(self, entry: YamlEntry, subject: str) -> None:
        if entry.node.tag.startswith("!"):
            reason = f"the tag {escape_unprintable(entry.node.tag)} is not followed"
            self._warn(Code.COMPOSE_NOT_FOLLOWED, entry.line, subject, reason, "write the value in full")

    def _where(self, line: int) -> str:
        return f"{self._filename}:{line}"

    def _error(
        self, code: Code, line: int, subject: str, reason: str, remedy: str, *, label: str | None = None
    ) -> None:
        self.problems.add(Problem(code, Severity.ERROR, subject, reason, remedy, label, self._where(line)))

    def _warn(self, code: Code, line: int, subject: str, reason: str, remedy: str, *, label: str | None = None) -> None:
        self.problems.add(Problem(code, Severity.WARNING, subject, reason, remedy, label, self._where(line)))


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not scalar_text(node)
