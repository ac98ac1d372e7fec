"""Follows `extends` and `include` of compose files, bounded, through a reader of files.

A service whose `extends` cannot be followed is refused alone. A file that compose itself would refuse breaks the
project: services are missing then, and must not be taken as removed.
"""

import os.path
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from types import MappingProxyType
from typing import Protocol

from mesh.config.labels.values import escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.documents import read_documents, services_of, with_services
from mesh.sources.compose.env_file import EnvFileError, parse_env_file
from mesh.sources.compose.interpolate import InterpolationError
from mesh.sources.compose.limits import ComposeBudget, ComposeProblems
from mesh.sources.compose.merge import merge_files, merge_nodes
from mesh.sources.compose.tree import (
    ComposeEntry,
    ComposeList,
    ComposeMapping,
    ComposeNode,
    ComposeOrigin,
    ComposeScalar,
)
from mesh.sources.compose.yaml_nodes import YamlError

_MAX_CHAIN = 32
"""Services that extend one another, and files that include one another."""
_MAX_INCLUDES = 200
_MAX_PATH = 300
"""Characters of a path in a message."""
_REMOTE = ("git@", "oci:", "oci+", "git:", "github.com/")


class ComposeFiles(Protocol):
    """Reads files that compose files name."""

    def read(self, path: str) -> str:
        """Return the text of a file. Raises `OSError`, and `UnicodeDecodeError` if it is not UTF-8."""
        ...


class NoComposeFiles:
    """Has no files: for a text that stands alone."""

    def read(self, path: str) -> str:
        """Raise `FileNotFoundError`."""
        raise FileNotFoundError(2, "it is not read here", path)


class ComposeReferenceError(MeshError):
    """A reference that cannot be followed. `where` is the `FILE:LINE` of the reference."""

    def __init__(self, where: str, reason: str, remedy: str) -> None:
        super().__init__(Code.COMPOSE_NOT_FOLLOWED, f"{reason}; {remedy}")
        self.where = where
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class ComposeText:
    """A file that has been read."""

    filename: str
    text: str


def shown_path(path: str) -> str:
    """Return a path that a file names, for messages."""
    return escape_unprintable(path, _MAX_PATH)


def read_reference(files: ComposeFiles, path: str, where: str) -> str:
    """Return the text of a file that is named at `where`. Raises `ComposeReferenceError`."""
    try:
        return files.read(path)
    except OSError as error:
        reason = f"{shown_path(path)} cannot be read: {error.strerror or error}"
        raise ComposeReferenceError(where, reason, "name a file that exists and is readable") from None
    except UnicodeDecodeError as error:
        reason = f"{shown_path(path)} is not UTF-8 at byte {error.start}"
        raise ComposeReferenceError(where, reason, "save it as UTF-8") from None


def resolve_path(node: ComposeScalar) -> str:
    """Return the path that a value names, from the directory of its file. Raises `ComposeReferenceError`."""
    where = node.origin.where(node.line)
    try:
        path, unset = node.fill()
    except InterpolationError as error:
        raise ComposeReferenceError(where, error.reason, error.remedy) from None
    if unset or not path or "\0" in path:
        reason = f"the path uses a variable that is not set: {quote_value(unset[0])}" if unset else "it is not a path"
        raise ComposeReferenceError(where, reason, "write the path of a file")
    return os.path.normpath(PurePath(node.origin.directory, path))


class ComposeReferences:
    """Loads the files of one project with what they extend and include, and collects the problems."""

    def __init__(self, files: ComposeFiles, budget: ComposeBudget) -> None:
        self.problems = ComposeProblems(budget.limits.problems)
        self.broken = False
        self.refused: set[str] = set()
        """Services that cannot be had as they were meant."""
        self._files = files
        self._extended: dict[str, ComposeMapping] = {}
        """Path -> the file, for `extends`."""
        self._includes = 0
        self._budget = budget
        self._services: dict[int, tuple[ComposeMapping, Mapping[str, ComposeEntry]]] = {}
        """The services of trees that are extended, by the identity of the tree, which is kept with them."""

    def load(
        self,
        texts: Sequence[ComposeText],
        directory: str,
        variables: Sequence[Mapping[str, str]],
        chain: tuple[str, ...],
    ) -> ComposeMapping | None:
        """Return the files merged into one tree; None if none can be read. Raises `ComposeTooLargeError`.

        `variables` has those of each file. `chain` has the files that include these.
        """
        trees: list[ComposeNode] = []
        for text, known in zip(texts, variables, strict=True):
            origin = ComposeOrigin(text.filename, directory, known, self._budget)
            try:
                documents = read_documents(text.text, origin, self.problems)
            except YamlError as error:
                self.broken = True
                where = f"{text.filename}:{error.line}" + (f":{error.column}" if error.column else "")
                self._break(error.code, "the file", error.reason, error.remedy, where)
                continue
            self.broken = self.broken or documents.broken
            trees.append(self._extend_all(documents.tree))
        if not trees:
            return None
        conflicts: list[tuple[str, str]] = []
        merged = merge_files(trees, conflicts)
        self._refuse_conflicts(conflicts)
        if not isinstance(merged, ComposeMapping):
            return None
        return self._include_all(merged, chain)

    def _extend_all(self, tree: ComposeMapping) -> ComposeMapping:
        services = dict(self._services_of(tree))
        if not any(_extends(entry.value) is not None for entry in services.values()):
            return tree
        for name, entry in services.items():
            if _extends(entry.value) is None:
                continue
            try:
                value = self._extend(tree, name, [])
            except ComposeReferenceError as error:
                self._refuse(name, "extends", error)
                value = _without_extends(entry.value)
            services[name] = replace(entry, value=value)
        return with_services(tree, services)

    def _services_of(self, tree: ComposeMapping) -> Mapping[str, ComposeEntry]:
        if id(tree) not in self._services:
            self._services[id(tree)] = tree, services_of(tree)
        return self._services[id(tree)][1]

    def _extend(self, tree: ComposeMapping, name: str, chain: list[tuple[int, str]]) -> ComposeNode:
        """Return a service merged into those that it extends. Raises `ComposeReferenceError`."""
        service = self._services_of(tree)[name].value
        extends = _extends(service)
        if extends is None:
            return service
        where = extends.where
        if (id(tree), name) in chain or len(chain) > _MAX_CHAIN:
            raise ComposeReferenceError(
                where, "it leads back to itself or has no end", "extend a service without extends"
            )
        chain.append((id(tree), name))
        base_name, file = _extended_service(extends)
        base_tree = tree if file is None else self._file(resolve_path(file), where, file.origin.variables)
        if base_name not in self._services_of(base_tree):
            reason = f"there is no service {quote_value(base_name)}" + (" in that file" if file else "")
            raise ComposeReferenceError(where, reason, "name a service of the file")
        conflicts: list[tuple[str, str]] = []
        merged = merge_nodes(
            self._extend(base_tree, base_name, chain), _without_extends(service), f"services\0{name}", conflicts
        )
        if conflicts:
            raise ComposeReferenceError(where, *_of_another_kind(*conflicts[0]))
        return merged

    def _file(self, path: str, where: str, variables: Mapping[str, str]) -> ComposeMapping:
        if path not in self._extended:
            origin = ComposeOrigin(shown_path(path), str(PurePath(path).parent), variables, self._budget)
            found = ComposeProblems(self._budget.limits.problems)
            try:
                documents = read_documents(read_reference(self._files, path, where), origin, found)
            except YamlError as error:
                reason = f"{shown_path(path)}:{error.line}: {error.reason}"
                raise ComposeReferenceError(where, reason, error.remedy) from None
            if documents.broken:
                first = next(problem for problem in found.kept(path) if problem.severity is Severity.ERROR)
                raise ComposeReferenceError(where, f"{first.where}: {first.reason}", first.remedy)
            self._extended[path] = documents.tree
        return self._extended[path]

    def _include_all(self, tree: ComposeMapping, chain: tuple[str, ...]) -> ComposeMapping:
        entry = tree.entries.get("include")
        if entry is None or (isinstance(entry.value, ComposeScalar) and entry.value.is_null):
            return tree
        items = entry.value.items if isinstance(entry.value, ComposeList) else (entry.value,)
        for item in items:
            try:
                self._includes += 1
                if self._includes > _MAX_INCLUDES or len(chain) > _MAX_CHAIN:
                    raise ComposeReferenceError(entry.where, "too many files are included", "include fewer")
                included = self._include(item, chain)
            except ComposeReferenceError as error:
                self.broken = True
                self._break(error.code, "include", error.reason, error.remedy, error.where)
                continue
            if included is not None:
                tree = self._import(tree, included)
        return tree

    def _include(self, item: ComposeNode, chain: tuple[str, ...]) -> ComposeMapping | None:
        """Return the tree of one entry of `include`; None if it is not followed. Raises `ComposeReferenceError`."""
        where = item.origin.where(item.line)
        keys = (
            item.entries if isinstance(item, ComposeMapping) else {"path": ComposeEntry(item.origin, item.line, item)}
        )
        paths = _texts(keys.get("path"))
        if not paths:
            raise ComposeReferenceError(where, "it names no file", "write the path of a compose file")
        remote = next((path.text for path in paths if "://" in path.text or path.text.startswith(_REMOTE)), None)
        if remote is not None:
            reason = f"{shown_path(remote)} is not a file of this host, and is not followed"
            self._warn("include", reason, "include a copy of it", where)
            return None
        named = [resolve_path(path) for path in paths]
        if named[0] in chain:
            raise ComposeReferenceError(where, f"{shown_path(named[0])} includes itself", "remove one include")
        directories = _texts(keys.get("project_directory"))
        directory = resolve_path(directories[0]) if directories else str(PurePath(named[0]).parent)
        variables = self._variables(item, keys, directory, where)
        texts = [ComposeText(shown_path(path), read_reference(self._files, path, where)) for path in named]
        return self.load(texts, directory, [variables] * len(texts), (*chain, named[0]))

    def _variables(
        self, item: ComposeNode, keys: Mapping[str, ComposeEntry], directory: str, where: str
    ) -> Mapping[str, str]:
        """Return the variables of an included file: those of its env files, below those of the project."""
        own = item.origin.variables
        known: dict[str, str] = {}
        self._budget.merge(len(own))
        if "env_file" in keys:
            for node in _texts(keys["env_file"]):
                path = resolve_path(node)
                if path != os.devnull:
                    self._budget.merge(len(known) + len(own))
                    known |= read_variables(self._files, path, {**known, **own}, where, self._budget)
            return {**known, **own}
        path = str(PurePath(directory, ".env"))
        return {**read_variables(self._files, path, own, where, self._budget, optional=True), **own}

    def _import(self, tree: ComposeMapping, included: ComposeMapping) -> ComposeMapping:
        entries = dict(tree.entries)
        for section in ("services", "volumes", "networks", "secrets", "configs", "models"):
            theirs = included.entries.get(section)
            if theirs is None or not isinstance(theirs.value, ComposeMapping):
                continue
            ours = entries.get(section)
            if ours is None or not isinstance(ours.value, ComposeMapping):
                entries[section] = theirs
                continue
            for name in theirs.value.entries.keys() & ours.value.entries.keys() if section == "services" else ():
                entry = theirs.value.entries[name]
                reason = f"{ours.value.entries[name].where} declares a service of this name, which counts"
                self._warn(f"service {escape_unprintable(name)}", reason, "rename one of them", entry.where)
            both = MappingProxyType({**theirs.value.entries, **ours.value.entries})
            entries[section] = replace(ours, value=replace(ours.value, entries=both))
        return replace(tree, entries=MappingProxyType(entries))

    def _refuse_conflicts(self, conflicts: list[tuple[str, str]]) -> None:
        for path, where in conflicts:
            section, _, rest = path.partition("\0")
            name = rest.partition("\0")[0]
            error = ComposeReferenceError(where, *_of_another_kind(path, where))
            if section == "services" and name:
                self._refuse(name, path.split("\0")[-1], error)
            else:
                self._add(Code.COMPOSE_STRUCTURE, escape_unprintable(section), error.reason, error.remedy, where)

    def _refuse(self, name: str, key: str, error: ComposeReferenceError) -> None:
        self.refused.add(name)
        subject = f"service {escape_unprintable(name)}, {escape_unprintable(key)}"
        self._add(error.code, subject, error.reason, error.remedy, error.where)

    def _add(self, code: Code, subject: str, reason: str, remedy: str, where: str) -> None:
        self.problems.add(Problem(code, Severity.ERROR, subject, reason, remedy, where=where))

    def _break(self, code: Code, subject: str, reason: str, remedy: str, where: str) -> None:
        self.problems.add_breaking(Problem(code, Severity.ERROR, subject, reason, remedy, where=where))

    def _warn(self, subject: str, reason: str, remedy: str, where: str) -> None:
        problem = Problem(Code.COMPOSE_NOT_FOLLOWED, Severity.WARNING, subject, reason, remedy, where=where)
        self.problems.add(problem)


@dataclass(frozen=True, slots=True)
class ComposeVariables:
    """The lines of a file such as `.env`."""

    values: Mapping[str, str | None]
    """None for a name without a value."""
    lines: Mapping[str, int]
    """Name -> line."""


class ComposeVariableFiles:
    """Parses `.env` files, `env_file` and `label_file`, each once for the same variables."""

    def __init__(self, files: ComposeFiles) -> None:
        self._files = files
        self._known = dict[tuple[str, int, bool], tuple[Mapping[str, str], ComposeVariables | EnvFileError]]()
        """Results by path, identity of the variables, which are kept with them, and whether values are raw."""

    def read(
        self, path: str, where: str, variables: Mapping[str, str], budget: ComposeBudget, *, raw: bool = False
    ) -> ComposeVariables:
        """Return what a file that is named at `where` has. Raises `ComposeReferenceError`.

        Its names are taken from the entries of `budget` each time, which raises `ComposeTooLargeError`.
        """
        key = path, id(variables), raw
        if key not in self._known:
            text = read_reference(self._files, path, where)
            self._known[key] = variables, _parsed(text, variables, budget, raw=raw)
        found = self._known[key][1]
        if isinstance(found, EnvFileError):
            reason = f"{shown_path(path)}:{found.line}: {found.reason}"
            raise ComposeReferenceError(where, reason, found.remedy)
        budget.read(len(found.values))
        return found


def _parsed(
    text: str, variables: Mapping[str, str], budget: ComposeBudget, *, raw: bool
) -> ComposeVariables | EnvFileError:
    try:
        return ComposeVariables(*parse_env_file(text, variables, raw=raw, budget=budget))
    except EnvFileError as error:
        return error


def read_variables(
    files: ComposeFiles,
    path: str,
    variables: Mapping[str, str],
    where: str,
    budget: ComposeBudget,
    *,
    optional: bool = False,
) -> dict[str, str]:
    """Return the variables of a `.env` file; none if it is `optional` and missing. Raises `ComposeReferenceError`."""
    try:
        text = files.read(path) if optional else read_reference(files, path, where)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError):
        text = read_reference(files, path, where)  # which says why
    try:
        values, _ = parse_env_file(text, variables, budget=budget)
    except EnvFileError as error:
        reason = f"{shown_path(path)}:{error.line}: {error.reason}"
        raise ComposeReferenceError(where, reason, error.remedy) from None
    return {name: value for name, value in values.items() if value is not None}


def _of_another_kind(path: str, where: str) -> tuple[str, str]:
    key = escape_unprintable(path.rsplit("\0", maxsplit=1)[-1])
    return f"{key} at {where} is of another kind than in the declaration before it", "write both alike"


def _extends(service: ComposeNode) -> ComposeEntry | None:
    entry = service.entries.get("extends") if isinstance(service, ComposeMapping) else None
    if entry is None or entry.value.tag == "!reset" or (isinstance(entry.value, ComposeScalar) and entry.value.is_null):
        return None
    return entry


def _without_extends(service: ComposeNode) -> ComposeNode:
    if not isinstance(service, ComposeMapping) or "extends" not in service.entries:
        return service
    kept = {key: entry for key, entry in service.entries.items() if key != "extends"}
    return ComposeMapping(service.origin, service.line, MappingProxyType(kept), service.tag)


def _extended_service(extends: ComposeEntry) -> tuple[str, ComposeScalar | None]:
    """Return the name of the service that is extended, and its file. Raises `ComposeReferenceError`."""
    value = extends.value
    keys = value.entries if isinstance(value, ComposeMapping) else {"service": extends}
    service = keys["service"].value if "service" in keys else None
    file = keys["file"].value if "file" in keys else None
    if not isinstance(service, ComposeScalar) or not isinstance(file, ComposeScalar | None):
        raise ComposeReferenceError(extends.where, "it names no service", "write service: NAME, and file: PATH")
    try:
        return service.fill()[0], None if file is None or file.is_null else file
    except InterpolationError as error:
        raise ComposeReferenceError(extends.where, error.reason, error.remedy) from None


def _texts(entry: ComposeEntry | None) -> list[ComposeScalar]:
    """Return the values of a key that is one text or a list of texts."""
    if entry is None:
        return []
    items = entry.value.items if isinstance(entry.value, ComposeList) else (entry.value,)
    return [item for item in items if isinstance(item, ComposeScalar) and not item.is_null]
