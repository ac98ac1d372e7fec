"""docs/cli.md and the code agree on verbs, options, documents and causes."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import fields

import pytest

from mesh.api.connectivity.report import ConnectivityReport, ConnectivityRow, UntestedClient
from mesh.api.explain.document import Cause
from mesh.cli import documents as answers
from mesh.cli import stack_documents as stacks
from mesh.cli.access import CLIENT_VARIABLES
from mesh.cli.doctor import DiagnosisDocument
from mesh.cli.doctor import FindingDocument as Finding
from mesh.cli.parser import build_parser
from mesh.cli.top_view import TopRow, TopSnapshot
from mesh.config import settings
from mesh.platform.stacks.rows import DeployRow, ReleaseRow, StackHistoryDocument
from tests.docs.pages import ROOT

VERBS, _, DOCUMENTS = (ROOT / "docs" / "cli.md").read_text().partition("## What programs get")
ROWS = dict(re.findall(r"^\| `(\w+(?: \w+)?)` \| (.*?) \|", VERBS.replace(r"\|", "/"), re.MULTILINE))


def actions(of: argparse.ArgumentParser) -> list[argparse.Action]:
    return of._actions  # noqa: SLF001 (argparse offers no other way)


def verbs() -> dict[str, argparse.ArgumentParser]:
    """All verbs; one that needs a verb of its own is in their names alone: `cluster certs`."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name, parser in choices(build_parser()).items():
        below = choices(parser)
        if not below or parser.get_default("action") == "list":
            found[name] = parser
        found |= {f"{name} {verb}": each for verb, each in below.items()}
    return found


def choices(of: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in actions(of):
        if action.nargs == argparse.PARSER:
            assert isinstance(action.choices, Mapping)
            return action.choices
    return {}


WORKER = {"--token-file", "--ca", "--cert", "--key", "--context"}
"""The options of all verbs that ask a worker, which have a table of their own."""


def test_the_options_that_name_a_worker_are_those_of_the_code_with_their_variables() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+) [A-Z]+` \| `(\w+)` \|", VERBS, re.MULTILINE)
    assert tuple(CLIENT_VARIABLES.values()) == settings.CLIENT_VARIABLES
    variables = {key: name for key, name in CLIENT_VARIABLES.items() if key != "context_file"}
    assert {option.removeprefix("--").replace("-", "_"): variable for option, variable in rows} == variables
    for verb in ("status", "top", "explain", "test", "drain", "maintenance", "undrain", "stop"):
        assert {option for action in actions(verbs()[verb]) for option in action.option_strings} > WORKER


@pytest.mark.parametrize("verb", verbs())
def test_each_verb_has_its_options(verb: str) -> None:
    shown = set(re.findall(r"--?[a-z]+(?:-[a-z]+)*", ROWS[verb]))
    real = {option for action in actions(verbs()[verb]) for option in action.option_strings} - {"-h", "--help"} - WORKER
    assert shown == real


def test_documented_verbs_equal_those_of_the_code() -> None:
    assert ROWS.keys() == verbs().keys()


@pytest.mark.parametrize(
    ("verb", "documents"),
    [
        ("`top`, a line each", [TopSnapshot, TopRow]),
        ("`test`", [ConnectivityReport, ConnectivityRow, UntestedClient]),
        ("`check`", [answers.CheckDocument, answers.ProblemDocument]),
        ("`doctor`", [DiagnosisDocument, Finding]),
        ("`drain`, `maintenance`, `undrain`, `stop`, `weight`", [answers.ChangeDocument, answers.LeftOutDocument]),
        (
            "`deploy`, `undeploy`, `scale`",
            [stacks.DeployDocument, stacks.ServiceChangeDocument, stacks.ServiceFailureDocument],
        ),
        ("`rebalance`, `drain --worker`, `undrain --worker`", [stacks.InstanceMovesDocument]),
        ("`ps`", [stacks.InstancesDocument, ReleaseRow]),
        ("`history`", [StackHistoryDocument, DeployRow]),
        ("`workers remove`", [answers.WorkerRemovalDocument]),
        ("`rollout status`", [answers.RolloutDocument, answers.RolloutReleaseDocument]),
        ("`rollout share`", [answers.ShareChangeDocument]),
        ("`claims free`, `claims move`", [answers.ClaimChangeDocument]),
        ("`cluster roles`", [answers.RolesDocument]),
        ("`teardown`", [answers.TeardownDocument]),
        ("`cluster certs`, `cluster revoke`", [answers.CertificatesDocument, answers.CertificateDocument]),
        ("any that failed as a whole", [answers.FailureDocument]),
    ],
)
def test_the_fields_of_each_document(verb: str, documents: list[type]) -> None:
    (row,) = [line for line in DOCUMENTS.splitlines() if line.startswith(f"| {verb} |")]
    told = re.findall(r"`(\w+)`", row.removeprefix(f"| {verb} |"))
    assert told == [field.name for document in documents for field in fields(document)]


def test_the_causes() -> None:
    table = DOCUMENTS.partition("### Causes")[2]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == [str(cause) for cause in Cause]
