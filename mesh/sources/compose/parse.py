"""Reads compose files into their services with labels and endpoints, each with its line.

It reads what the mesh needs: `name:`, and of every service `labels`, `label_file`, `profiles`, `x-endpoints` (the
addresses of instances that no container engine reports) and the names of other services. The other keys stay in the
tree, for who runs the containers. `extends` and `include` are followed (`mesh.sources.compose.references`), and several
files are one project.

There are three kinds of errors. A wrong label or endpoint is left out, and the rest is used. A service that cannot be
read as it was meant is `refused` alone. A file that compose itself would refuse as a whole (not YAML, a duplicate key,
no services) makes the project `broken`. What is missing for the last two reasons must not be taken as removed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from mesh.config.labels.reader import LABEL_PREFIXES, is_reserved_label, is_secret_label
from mesh.config.labels.values import LabelRefusedError, escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.documents import services_of
from mesh.sources.compose.interpolate import InterpolationError
from mesh.sources.compose.keys import SERVICE_KEYS, TOP_LEVEL_KEYS, unknown_key_remedy, unknown_keys
from mesh.sources.compose.limits import DEFAULT_LIMITS, ComposeBudget, ComposeLimits, ComposeTooLargeError
from mesh.sources.compose.model import ComposeEndpoint, ComposeFile, ComposeLink, ComposeService, parse_endpoint
from mesh.sources.compose.references import (
    ComposeFiles,
    ComposeReferenceError,
    ComposeReferences,
    ComposeText,
    ComposeVariableFiles,
    NoComposeFiles,
    resolve_path,
    shown_path,
)
from mesh.sources.compose.tree import (
    OVERRIDE,
    RESET,
    ComposeEntry,
    ComposeLayers,
    ComposeList,
    ComposeMapping,
    ComposeNode,
    ComposeScalar,
)

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_SERVICE_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
_RESOURCES = ("volumes", "configs", "secrets")
"""Top-level keys that services name entries of."""
_MAX_UNKNOWN = 20
"""Unknown keys that are reported of one project."""
_UNSET_SHOWN = 10
"""The most unset variables of one text that are named; the rest is counted."""


def read_compose_file(
    text: str, filename: str, env: Mapping[str, str], limits: ComposeLimits = DEFAULT_LIMITS
) -> ComposeFile:
    """Read one file that names no others. `filename` only names it in messages. Raises nothing."""
    return read_compose_project([ComposeText(filename, text)], "", [env], NoComposeFiles(), ComposeBudget(limits))


def read_compose_project(
    texts: Sequence[ComposeText],
    directory: str,
    variables: Sequence[Mapping[str, str]],
    files: ComposeFiles,
    budget: ComposeBudget | None = None,
) -> ComposeFile:
    """Read several files as one project, within a budget. Raises nothing.

    Relative paths begin in `directory`. `variables` has those of each file, by name.
    """
    budget = budget or ComposeBudget(files=max(1, len(texts)))
    references = ComposeReferences(files, budget)
    first = texts[0].filename if texts else ""
    try:
        tree = references.load(texts, directory, variables, tuple(text.filename for text in texts))
        if tree is None:
            return ComposeFile(None, {}, references.problems.kept(first), broken=True)
        profiles = variables[0].get("COMPOSE_PROFILES", "") if variables else ""
        reader = _ComposeReader(references, files, frozenset(filter(None, map(str.strip, profiles.split(",")))), budget)
        return reader.read(tree)
    except ComposeTooLargeError as error:
        where = f"{first}:1"
        references.problems.add_breaking(
            Problem(error.code, Severity.ERROR, "the file", error.reason, error.remedy, where=where)
        )
        return ComposeFile(None, {}, references.problems.kept(first), broken=True)


class _ComposeReader:
    """Reads the tree of one project. Its problems are added to those of the references."""

    def __init__(
        self, references: ComposeReferences, files: ComposeFiles, profiles: frozenset[str], budget: ComposeBudget
    ) -> None:
        self._references = references
        self._problems = references.problems
        self._profiles = profiles
        self._budget = budget
        self._unknown: list[ComposeEntry] = []
        """The keys that do not exist."""
        self._label_texts = ComposeVariableFiles(files)

    def read(self, tree: ComposeMapping) -> ComposeFile:
        """Return the project. Raises `ComposeTooLargeError`."""
        broken, refused = self._references.broken, set(self._references.refused)
        services: dict[str, ComposeService] = {}
        self._report_unknown("", tree.entries, TOP_LEVEL_KEYS)
        project = self._project(tree.entries["name"]) if "name" in tree.entries else None
        for name, entry in services_of(tree).items():
            service = self._service(name, entry)
            if service is None:
                refused.add(name)
            else:
                services[name] = service
        if self._budget.excess is not None:
            raise self._budget.excess
        self._count_unknown()
        problems = self._problems.kept(tree.origin.filename)
        resources = {key: tree.entries[key] for key in _RESOURCES if key in tree.entries}
        return ComposeFile(project, services, problems, broken, frozenset(refused), resources)

    def _report_unknown(self, subject: str, entries: Mapping[str, ComposeEntry], known: frozenset[str]) -> None:
        for key in unknown_keys(entries, known):
            if len(self._unknown) < _MAX_UNKNOWN:  # a similar key is looked for, which takes a while
                about = f"{subject}key {escape_unprintable(key)}"
                remedy = unknown_key_remedy(key, known)
                self._warn(Code.COMPOSE_KEY, entries[key].where, about, "there is no such key", remedy)
            self._unknown.append(entries[key])

    def _count_unknown(self) -> None:
        more = self._unknown[_MAX_UNKNOWN:]
        if more:
            reason = f"there are {len(more)} more keys that do not exist, which are not shown; the first one is here"
            self._warn(Code.PROBLEMS_NOT_SHOWN, more[0].where, "the file", reason, "correct those that are shown")

    def _project(self, entry: ComposeEntry) -> str | None:
        text = self._scalar(entry, "name", "write a project name such as demo")
        if text is not None and not _PROJECT.fullmatch(text):
            remedy = "write lower case letters, digits, hyphens and underscores"
            self._error(
                Code.COMPOSE_STRUCTURE, entry.where, "name", f"{quote_value(text)} is not a project name", remedy
            )
            return None
        return text

    def _service(self, name: str, entry: ComposeEntry) -> ComposeService | None:
        subject = f"service {escape_unprintable(name)}"
        if not isinstance(entry.value, ComposeMapping):
            remedy = "indent image:, labels: and so on below it"
            self._error(Code.COMPOSE_STRUCTURE, entry.where, subject, "it is not a mapping", remedy)
            return None
        if not _SERVICE_NAME.fullmatch(name):
            remedy = "write letters, digits, dots, hyphens and underscores"
            reason = f"{quote_value(name)} is not the name of a service"
            self._error(Code.COMPOSE_STRUCTURE, entry.where, subject, reason, remedy)
            return None
        keys = {key: value for key, value in entry.value.entries.items() if value.value.tag != RESET}
        self._report_unknown(f"{subject}, ", keys, SERVICE_KEYS)
        try:
            labels, where = self._label_files(keys.get("label_file"))
        except ComposeReferenceError as error:
            self._error(error.code, error.where, f"{subject}, label_file", error.reason, error.remedy)
            return None
        own_labels, own_where = self._labels(subject, keys.get("labels"))
        labels, where = {**labels, **own_labels}, {**where, **own_where}
        self._refuse_reserved(subject, labels, where)
        self._report_deploy_labels(subject, keys.get("deploy"))
        endpoints = self._endpoints(f"{subject}, x-endpoints", keys["x-endpoints"]) if "x-endpoints" in keys else None
        profiles = {text for text, _ in self._words(keys.get("profiles"))}
        return ComposeService(
            name,
            entry.where,
            MappingProxyType(labels),
            MappingProxyType(where),
            endpoints,
            not profiles or "*" in self._profiles or not profiles.isdisjoint(self._profiles),
            tuple(self._links(keys)),
            MappingProxyType(keys),
        )

    def _label_files(self, entry: ComposeEntry | None) -> tuple[dict[str, str], dict[str, str]]:
        """Return labels and places of all files of a service. Raises `ComposeReferenceError`."""
        labels: dict[str, str] = {}
        places: dict[str, str] = {}
        for node in _scalars(entry):
            self._budget.read(1)
            path, where = resolve_path(node), node.origin.where(node.line)
            found = self._label_texts.read(path, where, node.origin.variables, self._budget)
            labels |= {key: value or "" for key, value in found.values.items()}
            places |= {key: f"{shown_path(path)}:{line}" for key, line in found.lines.items()}
        return labels, places

    def _refuse_reserved(self, subject: str, labels: dict[str, str], where: Mapping[str, str]) -> None:
        for key in [key for key in labels if is_reserved_label(key)]:
            del labels[key]
            about = f"{subject}, label {escape_unprintable(key)}"
            reason = "it is reserved: vipmesh writes it to what it creates"
            self._error(Code.RESERVED_LABEL, where[key], about, reason, "remove it", label=key)

    def _report_deploy_labels(self, subject: str, entry: ComposeEntry | None) -> None:
        """Report labels of the mesh below `deploy.labels`: no container gets them."""
        deploy = entry.value.entries if entry is not None and isinstance(entry.value, ComposeMapping) else {}
        if "labels" not in deploy:
            return
        for layer in _layers(deploy["labels"].value):
            pairs: list[tuple[str, str]] = []
            if isinstance(layer, ComposeMapping):
                pairs = [(key, value.where) for key, value in layer.entries.items()]
            elif isinstance(layer, ComposeList):
                scalars = (item for item in layer.items if isinstance(item, ComposeScalar))
                pairs = [(item.text.partition("=")[0], item.origin.where(item.line)) for item in scalars]
            self._budget.read(len(pairs))
            for key, where in pairs:
                if key.startswith(LABEL_PREFIXES):
                    about = f"{subject}, deploy.labels, label {escape_unprintable(key)}"
                    reason = "labels below deploy are on no container, so it has no effect"
                    self._warn(
                        Code.COMPOSE_KEY, where, about, reason, "write it below labels of the service", label=key
                    )

    def _links(self, keys: Mapping[str, ComposeEntry]) -> Iterator[ComposeLink]:
        """Yield the names by which a service reaches others."""
        for key in ("external_links", "links"):
            for text, node in self._words(keys.get(key)):
                target, _, alias = text.partition(":")
                yield ComposeLink(key, target, alias or target, node.origin.where(node.line))

    def _words(self, entry: ComposeEntry | None) -> Iterator[tuple[str, ComposeScalar]]:
        """Yield the texts of a list, without those whose variables cannot be replaced."""
        for node in _scalars(entry):
            self._budget.read(1)
            try:
                yield node.fill()[0], node
            except InterpolationError:
                continue

    def _labels(self, subject: str, entry: ComposeEntry | None) -> tuple[dict[str, str], dict[str, str]]:
        """Return labels and their places, of all declarations that were merged."""
        labels: dict[str, str] = {}
        places: dict[str, str] = {}
        for layer in () if entry is None else _layers(entry.value):
            self._warn_tag(layer, f"{subject}, labels")
            if isinstance(layer, ComposeMapping):
                for key in [key for key, value in layer.entries.items() if value.value.tag == RESET]:
                    labels.pop(key, None)
                    places.pop(key, None)
                found, where = self._label_map(subject, layer)
            elif isinstance(layer, ComposeList):
                found, where = self._label_list(subject, layer)
            elif layer.is_null:
                continue
            else:
                reason = "it is neither a mapping nor a list"
                where_written = layer.origin.where(layer.line)
                self._error(
                    Code.COMPOSE_STRUCTURE, where_written, f"{subject}, labels", reason, "write KEY: VALUE below it"
                )
                continue
            labels |= found
            places |= where
        return labels, places

    def _label_map(self, subject: str, node: ComposeMapping) -> tuple[dict[str, str], dict[str, str]]:
        labels, places = {}, {}
        self._budget.read(len(node.entries))
        for key, entry in node.entries.items():
            if entry.value.tag == RESET:
                continue
            about = f"{subject}, label {escape_unprintable(key)}"
            value = self._scalar(entry, about, "write one text, in quotes if it has brackets", key)
            if value is not None:
                labels[key], places[key] = value, entry.where
        return labels, places

    def _label_list(self, subject: str, node: ComposeList) -> tuple[dict[str, str], dict[str, str]]:
        labels: dict[str, str] = {}
        lines: dict[str, int] = {}
        self._budget.read(len(node.items))
        for item in node.items:
            text = self._scalar(_entry(item), f"{subject}, labels", 'write "KEY=VALUE"')
            if text is None:
                continue
            key, _, value = text.partition("=")
            if key in lines:
                reason = f"it is on line {lines[key]} and again on line {item.line}"
                self._error(
                    Code.WRITTEN_TWICE,
                    item.origin.where(item.line),
                    f"{subject}, label {escape_unprintable(key)}",
                    reason,
                    "keep one of them",
                    label=key,
                )
                labels.pop(key, None)
            else:
                labels[key], lines[key] = value, item.line
        return labels, {key: node.origin.where(line) for key, line in lines.items()}

    def _endpoints(self, subject: str, entry: ComposeEntry) -> tuple[ComposeEndpoint, ...]:
        self._warn_tag(entry.value, subject)
        if isinstance(entry.value, ComposeScalar) and entry.value.is_null:
            return ()
        example = "write ADDRESS, ADDRESS:PORT or [IPV6]:PORT, in quotes"
        if not isinstance(entry.value, ComposeList):
            self._error(
                Code.COMPOSE_STRUCTURE, entry.where, subject, "it is not a list", f'{example}: ["127.0.0.11:18080"]'
            )
            return ()
        endpoints: dict[str, ComposeEndpoint] = {}
        self._budget.read(len(entry.value.items))
        self._budget.list_endpoints(len(entry.value.items))
        for item in entry.value.items:
            text = self._scalar(_entry(item), subject, example)
            if text is None:
                continue
            where = item.origin.where(item.line)
            try:
                endpoint = ComposeEndpoint(*parse_endpoint(text), where)
            except LabelRefusedError as refused:
                self._error(refused.code, where, subject, refused.reason, refused.remedy)
                continue
            if endpoints.setdefault(str(endpoint), endpoint) is not endpoint:
                self._error(Code.WRITTEN_TWICE, where, subject, f"{endpoint} is listed twice", "write it once")
        return tuple(endpoints.values())

    def _scalar(self, entry: ComposeEntry, subject: str, remedy: str, label: str | None = None) -> str | None:
        """Return the node as text with its variables replaced; if that is impossible, add a problem and return None."""
        where, node = entry.where, entry.value
        if not isinstance(node, ComposeScalar):
            self._error(Code.COMPOSE_STRUCTURE, where, subject, "the value is not a single text", remedy, label=label)
            return None
        text = node.text
        if text.lower() != node.written.lower() and not node.is_null and (label or "").startswith(LABEL_PREFIXES):
            if is_secret_label(label or ""):
                reason, remedy = "without quotes the value is a number and becomes another text", "put it in quotes"
            else:
                reason = f"without quotes {escape_unprintable(node.written)} is a number and becomes {text}"
                remedy = f"write {quote_value(node.written)} with the quotes"
            self._warn(Code.COMPOSE_VALUE_CHANGED_BY_YAML, where, subject, reason, remedy, label=label)
        try:
            text, unset = node.fill(self._budget)
        except InterpolationError as error:
            if self._budget.excess is not None:
                raise self._budget.excess from None
            self._error(error.code, where, subject, error.reason, error.remedy, label=label)
            return None
        for name in map(escape_unprintable, unset[:_UNSET_SHOWN]):
            reason = f"variable {name} is not set and counts as empty"
            self._warn(Code.COMPOSE_VARIABLE, where, subject, reason, f"set {name}", label=label)
        if len(unset) > _UNSET_SHOWN:
            reason = f"{len(unset) - _UNSET_SHOWN} more variables are not set and count as empty"
            self._warn(Code.COMPOSE_VARIABLE, where, subject, reason, "set them", label=label)
        return text

    def _warn_tag(self, node: ComposeNode, subject: str) -> None:
        if node.tag and node.tag not in (OVERRIDE, RESET):
            reason = f"the tag {escape_unprintable(node.tag)} is not followed"
            where = node.origin.where(node.line)
            self._warn(Code.COMPOSE_NOT_FOLLOWED, where, subject, reason, "write the value in full")

    def _error(
        self, code: Code, where: str, subject: str, reason: str, remedy: str, *, label: str | None = None
    ) -> None:
        self._problems.add(Problem(code, Severity.ERROR, subject, reason, remedy, label, where))

    def _warn(
        self, code: Code, where: str, subject: str, reason: str, remedy: str, *, label: str | None = None
    ) -> None:
        self._problems.add(Problem(code, Severity.WARNING, subject, reason, remedy, label, where))


def _entry(node: ComposeNode) -> ComposeEntry:
    return ComposeEntry(node.origin, node.line, node)


def _layers(node: ComposeNode) -> "tuple[ComposeMapping | ComposeList | ComposeScalar, ...]":
    return node.layers if isinstance(node, ComposeLayers) else (node,)


def _scalars(entry: ComposeEntry | None) -> Iterator[ComposeScalar]:
    """Yield the single values of a key that is one value or a list of values."""
    if entry is not None:
        items = entry.value.items if isinstance(entry.value, ComposeList) else (entry.value,)
        yield from (item for item in items if isinstance(item, ComposeScalar) and not item.is_null)
